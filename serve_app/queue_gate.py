"""The bound on accepted runs that nobody has begun."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.stores.records import QueueState
from actors.stores.store import RunStore
from registries.contracts.errors import CapacityError
from serve_app.recent import Recent

KEEP_S = 0.5
"""Asking the store before every run would cost as much as accepting it."""


class QueueGate:
    """Lets background runs in while the queue has room: the store's count plus what was let in since."""

    def __init__(self, store: RunStore, max_queued: int, now: Callable[[], float] = time.monotonic) -> None:
        self._max_queued = max_queued
        self._store = store
        self._state = Recent(self._read, KEEP_S, now)
        self._since = 0

    async def enter(self) -> None:
        """Raises CapacityError when the queue is full, StoreError when it cannot be read."""
        queued = (await self._state.get()).queued
        if queued + self._since >= self._max_queued:
            raise CapacityError(f"{queued} runs are queued, the limit; try again", retry_after_s=5.0)
        self._since += 1

    async def _read(self) -> QueueState:
        state = await self._store.queue()
        self._since = 0
        return state
