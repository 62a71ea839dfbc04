"""The gateway's observer: its facts become metrics and log lines."""

from __future__ import annotations

import structlog

from actors.telemetry.metrics import Metrics
from registries.contracts.generation import Attempt, Usage


class GatewayTelemetry:
    """Implements actors.gateway.observer.GatewayObserver; never blocks, never raises."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger("actors.gateway")

    def on_selection(self, model: str, provider: str, strategy: str, request_id: str) -> None:
        """Count the choice."""
        self._metrics.record_selection(model, provider)

    def on_attempt(self, attempt: Attempt, usage: Usage | None, request_id: str) -> None:
        """Count the try and log it: one line a provider call."""
        self._metrics.record_attempt(attempt, usage)
        facts = attempt.model_dump(exclude_none=True)
        if usage is not None:
            facts["prompt_tokens"] = usage.prompt_tokens
            facts["completion_tokens"] = usage.completion_tokens
            facts["cost_usd"] = usage.cost
        level = self._log.info if attempt.outcome == "ok" else self._log.warning
        # The gateway's id is the call's own where a flow asks; the request's is bound by whoever serves it.
        if "request_id" not in structlog.contextvars.get_contextvars():
            facts["request_id"] = request_id
        level("provider_call", call_id=request_id, **facts)

    def on_breaker(self, key: str, previous: str, state: str, epoch: int, cause: str) -> None:
        """Count the change and log it: blocks as warnings, recoveries as information."""
        self._metrics.record_breaker(key, state)
        level = self._log.warning if state == "open" else self._log.info
        level("breaker_changed", breaker=key, previous=previous, state=state, epoch=epoch, cause=cause)
