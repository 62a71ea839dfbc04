"""What the gateway tells metrics and logs."""

from __future__ import annotations

from typing import Protocol

from registries.contracts.generation import Attempt, Usage


class GatewayObserver(Protocol):
    """Receiver of the gateway's facts; called inline, so it must not block or raise."""

    def on_selection(self, model: str, provider: str, strategy: str, request_id: str) -> None:
        """A call begins: its first choice of model, and the strategy in force."""
        ...

    def on_attempt(self, attempt: Attempt, usage: Usage | None, request_id: str) -> None:
        """One try ended (``attempt.outcome`` says how). ``usage`` is None where nothing was generated."""
        ...

    def on_breaker(self, key: str, previous: str, state: str, epoch: int, cause: str) -> None:
        """A breaker changed state as this process sees it ("closed", "open", "half_open")."""
        ...


class NullObserver:
    """Hears everything, tells nobody."""

    def on_selection(self, model: str, provider: str, strategy: str, request_id: str) -> None:
        """Ignore."""

    def on_attempt(self, attempt: Attempt, usage: Usage | None, request_id: str) -> None:
        """Ignore."""

    def on_breaker(self, key: str, previous: str, state: str, epoch: int, cause: str) -> None:
        """Ignore."""
