"""Where a checkpointer's rows go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.stores.records import CheckpointRow, WriteRow


class CheckpointWriter(Protocol):
    """Writes the states of one run, in the order in which they are handed in."""

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Committed when this returns, with all that was deferred; raises LeaseLost, StoreError."""
        ...

    def defer(self, checkpoints: Sequence[CheckpointRow]) -> None:
        """Goes with the next commit."""
        ...

    async def hold(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Committed with the run's end, or soon without it; raises as ``keep``."""
        ...

    async def flush(self) -> None:
        """Everything taken is committed; raises as ``keep``."""
        ...
