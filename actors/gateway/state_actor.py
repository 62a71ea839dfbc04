"""GatewayState: the one owner of breaker transitions and half-open permits in the cluster."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray

from actors.gateway.breaker import Allowed, Blocked, BreakerPolicy, BreakerRecord, Outcome
from actors.gateway.state_core import StateCore, StateSnapshot
from actors.ray_flags import NAMESPACE
from registries.contracts.config import RuntimeConfig

NAME = "GatewayState"
MAX_CONCURRENCY = 10_000
"""Every process parks one long-poll here."""


class GatewayState:
    """Async actor; every method is a few dict operations. Its state is rebuilt from its callers' copies.

    ``incarnation`` is new at every start: a caller that sees it change sends its breakers again (sync).
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._core = StateCore(uuid.uuid4().hex, policy, time.monotonic)
        self._changed = asyncio.Condition()

    async def sync(self, records: Sequence[BreakerRecord]) -> StateSnapshot:
        """Merge what a caller holds; answers with every breaker."""
        before = self._core.version
        snapshot = self._core.sync(records)
        if self._core.version != before:
            await self._notify()
        return snapshot

    async def push(
        self, incarnation: str, outcomes: Sequence[Outcome], records: Sequence[BreakerRecord]
    ) -> str:
        """Count outcomes of a caller that has synced with this incarnation; answers the incarnation.

        A caller of an earlier incarnation is told apart by the answer and its outcomes are left out:
        the records that it syncs next contain them.
        """
        if incarnation == self._core.incarnation and self._core.push(outcomes, records):
            await self._notify()
        return self._core.incarnation

    async def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        """Ask for the half-open permit of ``key``, valid ``lease_s`` seconds."""
        before = self._core.version
        answer = self._core.permit(key, lease_s)
        if self._core.version != before:
            await self._notify()
        return answer

    async def watch(self, incarnation: str, version: int, timeout_s: float) -> StateSnapshot:
        """Long-poll: answers as soon as anything is newer than ``version``, else after ``timeout_s``."""
        if incarnation == self._core.incarnation:
            try:
                async with asyncio.timeout(timeout_s), self._changed:
                    await self._changed.wait_for(lambda: self._core.version > version)
            except TimeoutError:
                pass  # nothing changed: the empty answer tells the caller that we live
        return self._core.since(version)

    async def describe(self) -> dict[str, Any]:
        """For operators: process id, incarnation, version, breakers."""
        snapshot = self._core.since(0)
        return {
            "pid": os.getpid(),
            "incarnation": snapshot.incarnation,
            "version": snapshot.version,
            "breakers": {r.key: r.state.value for r in snapshot.records},
        }

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def breaker_policy(config: RuntimeConfig) -> BreakerPolicy:
    """CIRCUIT_BREAKER_MAX_FAILURES and CIRCUIT_BREAKER_TIMEOUT as the breaker's policy."""
    open_s = config.breaker.timeout_s
    return BreakerPolicy(
        max_failures=config.breaker.max_failures, open_s=open_s, auth_open_s=max(open_s, 600.0)
    )


def ensure_gateway_state(config: RuntimeConfig) -> Any:
    """The actor's handle; made when there is none. Blocks for a round trip: call it from a thread.

    num_cpus=0: it must fit on a full cluster. Detached and restarted for ever: it outlives every job.
    """
    actor = ray.remote(GatewayState).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=MAX_CONCURRENCY,
        num_cpus=0,
    )
    return actor.remote(breaker_policy(config))
