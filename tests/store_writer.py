"""Checkpoints straight into a store, by tests that hold no run; a run writes them through its log."""

from __future__ import annotations

from collections.abc import Sequence

from actors.stores.records import CheckpointRow, WriteRow
from actors.stores.store import CheckpointStore


class StoreWriter:
    """A CheckpointWriter without a lease: nobody else may run the graph meanwhile."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._checkpoints: list[CheckpointRow] = []

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Committed when this returns; raises StoreError, and what was deferred stays deferred then."""
        deferred, self._checkpoints = self._checkpoints, []
        try:
            await self._store.keep((*deferred, *checkpoints), writes)
        except BaseException:
            self._checkpoints = [*deferred, *self._checkpoints]
            raise

    def defer(self, checkpoints: Sequence[CheckpointRow]) -> None:
        """Goes with the next ``keep`` or ``flush``."""
        self._checkpoints.extend(checkpoints)

    async def hold(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Committed at once: no end of a run comes here."""
        await self.keep(checkpoints, writes)

    async def flush(self) -> None:
        """Everything deferred is committed; raises StoreError."""
        if self._checkpoints:
            await self.keep((), ())
