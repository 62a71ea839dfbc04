"""A process's side of GatewayState: local look-ups, outcomes pushed, changes watched."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.gateway.breaker import (
    PROBE_HINT_S,
    Admission,
    Allowed,
    Blocked,
    BreakerPolicy,
    BreakerRecord,
    Outcome,
    OutcomeKind,
)
from actors.gateway.breaker_board import LocalBoard
from actors.gateway.observer import GatewayObserver
from actors.gateway.state_core import StateSnapshot
from actors.gateway.state_link import StateAway, StateLink
from registries.contracts.generation import BreakerFact

WATCH_S = 5.0
"""Length of one long-poll; a lost actor is noticed sooner, by the error."""
RECONNECT_S = 0.1
MAX_RECONNECT_S = 1.0
PERMIT_WAIT_S = 0.5
"""Longest wait of a call for the actor's permit; a slow actor means no probe, a dead one means our own."""


class StateClient:
    """BreakerBoard shared with the cluster.

    The owned task runs from ``start`` to ``aclose``: one loop pushes, one watches. While the actor is
    away the local breakers decide alone, and no call fails for it; afterwards both sides merge by epoch.
    """

    def __init__(
        self,
        link: StateLink,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        observer: GatewayObserver | None = None,
    ) -> None:
        self._link = link
        self._local = LocalBoard(policy, clock, rng, observer)
        self._outcomes: list[Outcome] = []
        self._moved: set[str] = set()
        self._wake = asyncio.Event()
        self._incarnation = ""
        self._version = 0
        self._connected = False
        self._task: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[tuple[Allowed | Blocked, BreakerRecord]]] = set()

    @property
    def connected(self) -> bool:
        """Whether this process follows a living GatewayState."""
        return self._connected

    async def start(self) -> None:
        """Sync once (an actor that is away is no error) and begin to follow; the loops end in aclose."""
        with contextlib.suppress(StateAway):
            await self._sync()
        self._task = asyncio.create_task(self._run(), name="gateway-state-client")

    async def aclose(self) -> None:
        """Push what is left, end the loops; idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        asking = list(self._asking)
        for pending in (task, *asking):
            pending.cancel()
        await asyncio.wait([task, *asking])
        if self._connected:
            with contextlib.suppress(StateAway):
                await self._push()

    def admit(self, key: str) -> Admission:
        """See BreakerBoard."""
        return self._local.admit(key)

    async def permit(self, key: str, lease_s: float) -> Allowed | Blocked:
        """See BreakerBoard: the actor's permit, or the own breaker's while the actor is away.

        A permit that comes after its caller stopped waiting is given back: nobody would use it, and
        everybody would wait for its lease to end.
        """
        if self._connected:
            asking = asyncio.create_task(self._link.permit(key, lease_s), name="gateway-permit")
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
            try:
                async with asyncio.timeout(PERMIT_WAIT_S):
                    answer, record = await asyncio.shield(asking)
            except TimeoutError:
                asking.add_done_callback(self._give_back)
                return Blocked("probing", PROBE_HINT_S)
            except asyncio.CancelledError:
                asking.add_done_callback(self._give_back)
                raise
            except StateAway:
                self._connected = False
            else:
                self._local.merge([record], authoritative=True)
                return answer
        self._moved.add(key)
        return self._local.grant(key, lease_s)

    def _give_back(self, asked: asyncio.Task[tuple[Allowed | Blocked, BreakerRecord]]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return
        answer, record = asked.result()
        self._local.merge([record], authoritative=True)
        if isinstance(answer, Allowed) and answer.permit_id is not None:
            self.report(Outcome(record.key, OutcomeKind.IGNORED, answer.epoch, answer.permit_id))

    def report(self, outcome: Outcome) -> None:
        """See BreakerBoard. A success is pushed only where a failure is on the count: else it is no news."""
        was_clean = self._local.breaker(outcome.key).failures == 0
        if self._local.record(outcome):
            self._moved.add(outcome.key)
        no_news = outcome.kind is OutcomeKind.IGNORED or (outcome.kind is OutcomeKind.SUCCESS and was_clean)
        if self._connected and not (no_news and outcome.permit_id is None):
            self._outcomes.append(outcome)
            self._wake.set()

    def fact(self, key: str) -> BreakerFact:
        """See BreakerBoard."""
        return self._local.fact(key)

    def records(self) -> tuple[BreakerRecord, ...]:
        """See BreakerBoard."""
        return self._local.records()

    def adopt(self, records: Iterable[BreakerRecord]) -> None:
        """See BreakerBoard; what is news here is passed on to the actor."""
        for record in records:
            if self._local.merge([record], authoritative=False):
                self._moved.add(record.key)
                self._wake.set()

    def describe(self) -> dict[str, Any]:
        """See BreakerBoard."""
        return {
            "shared": True,
            "connected": self._connected,
            "incarnation": self._incarnation,
            "version": self._version,
            "breakers": self._local.describe_breakers(),
        }

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_forever())
            group.create_task(self._push_forever())

    async def _watch_forever(self) -> None:
        delay_s = RECONNECT_S
        while True:
            try:
                if not self._connected:
                    await self._sync()
                    delay_s = RECONNECT_S
                self._take(await self._link.watch(self._incarnation, self._version, WATCH_S))
            except StateAway:
                self._connected = False
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, MAX_RECONNECT_S)

    async def _sync(self) -> None:
        # The records contain every outcome counted so far; sending those again would count them twice.
        self._forget_unsent()
        snapshot = await self._link.sync(self._local.records())
        self._incarnation, self._version = snapshot.incarnation, snapshot.version
        self._local.merge(snapshot.records, authoritative=False)
        self._connected = True

    def _take(self, snapshot: StateSnapshot) -> None:
        if snapshot.incarnation != self._incarnation:
            self._connected = False
            return
        self._version = snapshot.version
        self._local.merge(snapshot.records, authoritative=True)

    async def _push_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._connected:
                continue
            try:
                await self._push()
            except StateAway:
                self._connected = False

    async def _push(self) -> None:
        outcomes = self._outcomes
        moved = [r for r in self._local.records() if r.key in self._moved]
        self._forget_unsent()
        if not outcomes and not moved:
            return
        incarnation = await self._link.push(self._incarnation, outcomes, moved)
        if incarnation != self._incarnation:
            self._connected = False

    def _forget_unsent(self) -> None:
        self._outcomes = []
        self._moved = set()
