"""The wire between a process and GatewayState; the only place that knows Ray's errors for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import ray.exceptions

from actors.gateway.breaker import Allowed, Blocked, BreakerRecord, Outcome
from actors.gateway.state_core import StateSnapshot

CALL_TIMEOUT_S = 2.0
"""Longest wait for a call that takes the actor microseconds: beyond it the actor counts as away."""


class StateAway(Exception):
    """GatewayState cannot be reached now; callers go on with their own breakers."""


class StateLink(Protocol):
    """GatewayState's methods; every one raises StateAway when the actor cannot be reached."""

    async def sync(self, records: Sequence[BreakerRecord]) -> StateSnapshot:
        """Send what this process holds, get everything."""
        ...

    async def push(
        self, incarnation: str, outcomes: Sequence[Outcome], records: Sequence[BreakerRecord]
    ) -> str:
        """Send outcomes; answers the actor's incarnation."""
        ...

    async def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        """Ask for a half-open permit."""
        ...

    async def watch(self, incarnation: str, version: int, timeout_s: float) -> StateSnapshot:
        """Wait for changes."""
        ...


class RayStateLink:
    """Over a Ray actor; ``find`` blocks (GCS round trip), makes the actor if needed, and runs in a thread."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._actor: Any = None

    async def sync(self, records: Sequence[BreakerRecord]) -> StateSnapshot:
        """See StateLink; also looks the actor up again, since this follows a loss."""
        try:
            self._actor = await asyncio.to_thread(self._find)
        except (ray.exceptions.RayError, ValueError, RuntimeError, ConnectionError) as error:
            raise StateAway(str(error)) from error
        snapshot: StateSnapshot = await self._call("sync", CALL_TIMEOUT_S, list(records))
        return snapshot

    async def push(
        self, incarnation: str, outcomes: Sequence[Outcome], records: Sequence[BreakerRecord]
    ) -> str:
        """See StateLink."""
        answer: str = await self._call("push", CALL_TIMEOUT_S, incarnation, list(outcomes), list(records))
        return answer

    async def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        """See StateLink."""
        answer: tuple[Allowed | Blocked, BreakerRecord] = await self._call(
            "permit", CALL_TIMEOUT_S, key, lease_s
        )
        return answer

    async def watch(self, incarnation: str, version: int, timeout_s: float) -> StateSnapshot:
        """See StateLink."""
        snapshot: StateSnapshot = await self._call(
            "watch", timeout_s + CALL_TIMEOUT_S, incarnation, version, timeout_s
        )
        return snapshot

    async def _call(self, method: str, timeout_s: float, *args: Any) -> Any:
        if self._actor is None:
            raise StateAway("GatewayState has not been looked up yet")
        try:
            async with asyncio.timeout(timeout_s):
                reference: Awaitable[Any] = getattr(self._actor, method).remote(*args)
                return await reference
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise StateAway(f"GatewayState.{method}: {type(error).__name__}") from error
