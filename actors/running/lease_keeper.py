"""Keeps the leases of a runner's runs alive from a thread that no node can hold up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from actors.stores.records import Lease
from actors.stores.store import LeaseRenewer
from registries.contracts.errors import StoreError

MAX_INTERVAL_S = 1.0
"""Renewals also bring word of cancellations: at most so much later than they were asked for."""


@dataclass(slots=True)
class _Held:
    """``sure_until``: the monotonic time up to which nobody else can have the run."""

    lease: Lease
    sure_until: float
    on_lost: Callable[[], None]
    on_cancelled: Callable[[], None]


class LeaseKeeper:
    """One a runner. A lease counts from before the request that got it, so that ours ends first.

    ``on_lost`` and ``on_cancelled`` are called on the event loop. A database that is away makes nobody lose a
    lease before its time is over: then ``is_sure`` says no, and the run may not begin anything.
    """

    def __init__(
        self,
        renewer: LeaseRenewer,
        ttl_s: float,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renewer = renewer
        self._ttl_s = ttl_s
        self._loop = loop
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    @property
    def interval_s(self) -> float:
        """Between two renewals: a third of the lease, so that one may fail."""
        return min(self._ttl_s / 3, MAX_INTERVAL_S)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def add(
        self, lease: Lease, asked_at: float, on_lost: Callable[[], None], on_cancelled: Callable[[], None]
    ) -> None:
        """Keep a lease that was claimed by a request sent at ``asked_at`` (monotonic)."""
        with self._lock:
            self._held[lease.run_id] = _Held(lease, asked_at + self._ttl_s, on_lost, on_cancelled)

    def remove(self, lease: Lease) -> None:
        """Stop keeping it."""
        with self._lock:
            held = self._held.get(lease.run_id)
            if held is not None and held.lease == lease:
                del self._held[lease.run_id]

    def is_sure(self, lease: Lease) -> bool:
        """Whether nobody else can have taken the run over yet."""
        held = self._held.get(lease.run_id)
        return held is not None and held.lease == lease and self._clock() < held.sure_until

    def close(self) -> None:
        """End the thread and its connection; blocks for a renewal at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._renewer.close()

    def renew(self) -> None:
        """One round; blocking. The thread's work, also for tests."""
        with self._lock:
            asked = dict(self._held)
        if not asked:
            return
        asked_at = self._clock()
        renewal = self._renewer.renew([held.lease for held in asked.values()], self._ttl_s)
        for run_id, held in asked.items():
            if held.lease not in renewal.held:
                self.remove(held.lease)
                self._tell(held.on_lost)
                continue
            held.sure_until = asked_at + self._ttl_s
            if run_id in renewal.cancelled:
                self._tell(held.on_cancelled)

    def _run(self) -> None:
        log = structlog.get_logger("actors.running")
        while not self._stop.wait(self.interval_s):
            try:
                self.renew()
            except StoreError as error:
                if not self._away:
                    log.warning("leases_not_renewed", error=error.message, held=len(self._held))
                self._away = True
            except Exception:
                log.exception("lease_keeper_failed")
            else:
                if self._away:
                    log.info("leases_renewed_again", held=len(self._held))
                self._away = False

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop is closed: the process ends, and its runs go to others when their leases run out.
            self._stop.set()
