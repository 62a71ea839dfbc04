"""Fetches runs for a runner: new ones by their order, and those whose runner died."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from actors.stores.records import ClaimedRun, QueueState
from actors.stores.store import RunStore
from actors.telemetry.metrics import Metrics
from registries.contracts.config import LeaseConfig
from registries.contracts.errors import StoreError

MAX_CLAIMS = 32
"""Runs fetched by one query; more would make the other runners of a cluster wait for them."""
RECOVERY_S = 2.0
"""After the database was away: leases get time to be renewed before any is taken from its owner."""


class RunQueue:
    """One a runner: a reaper of dead owners' runs and a reader of the queue in one.

    ``free`` says how many more runs this runner may hold; ``begin`` takes each claimed one together with the
    monotonic time at which it was asked for.
    """

    def __init__(
        self,
        store: RunStore,
        owner: str,
        lease: LeaseConfig,
        free: Callable[[], int],
        begin: Callable[[ClaimedRun, float], None],
        metrics: Metrics,
        jitter: random.Random | None = None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._lease = lease
        self._free = free
        self._begin = begin
        self._metrics = metrics
        self._random = jitter or random.Random()
        self._news = asyncio.Event()
        self._claiming = asyncio.Lock()
        self.backlog = False
        """Whether runs may be waiting that came before any new one."""
        self.state = QueueState()

    def wake(self) -> None:
        """Look now: a run was accepted, or a slot came free while others wait."""
        self._news.set()

    async def settle(self, timeout_s: float) -> None:
        """Return when no claim is under way: what it took is begun. TimeoutError when that takes longer."""
        async with asyncio.timeout(timeout_s), self._claiming:
            pass

    async def run(self) -> None:
        """Until cancelled; a fault of ours is logged, and it looks again."""
        log = structlog.get_logger("actors.running")
        away = False
        looked_at = 0.0
        while True:
            await self._pause()
            try:
                await self.fetch()
                if time.monotonic() - looked_at >= self._lease.scan_s:
                    looked_at = time.monotonic()
                    self.state = await self._store.queue()
                    self._metrics.record_queued_runs(self.state.queued)
                if away:
                    log.info("queue_read_again")
                away = False
            except StoreError as error:
                if not away:
                    log.warning("queue_not_read", error=error.message)
                away = True
                await asyncio.sleep(RECOVERY_S)
            except Exception:
                log.exception("queue_fault")
                await asyncio.sleep(self._lease.scan_s)

    async def fetch(self) -> int:
        """Claim what there is room for; how many runs were begun."""
        begun = 0
        while (room := min(self._free(), MAX_CLAIMS)) > 0:
            async with self._claiming:
                asked_at = time.monotonic()
                claimed = await self._store.claim_next(
                    self._owner, self._lease.ttl_s, self._lease.max_deaths, room
                )
                for run in claimed:
                    self._begin(run, asked_at)
            begun += len(claimed)
            if len(claimed) < room:
                self.backlog = False
                return begun
        self.backlog = True
        return begun

    async def _pause(self) -> None:
        # Jitter: the runners of a cluster started together shall not look together.
        pause_s = self._lease.scan_s * (0.75 + self._random.random() / 2)
        try:
            async with asyncio.timeout(pause_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
