"""What a run has still to commit, and until when it may wait for company."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from actors.running.coalescing import is_durable
from actors.stores.records import CheckpointRow, RunWrite, WriteRow
from registries.contracts.runs import RunEvent

BEGIN_PATIENCE_S = 0.010
"""Events that say that something begins wait so long for what ends it: an instant node costs one commit.

A reader sees them within 50 ms (a budget of `make bench`), which leaves room for the commit and the way."""
END_PATIENCE_S = 0.002
"""Ends of nodes: the checkpoint that follows at once joins their commit; a sibling's end does not wait longer."""
_BEGINNINGS = frozenset({"run.started", "node.started", "round.started"})


@dataclass(slots=True)
class Batch:
    """One commit and what is shown after it. ``events`` has tokens too; ``waiters`` wait for the commit."""

    events: list[RunEvent]
    write: RunWrite
    waiters: list[asyncio.Future[None]]


class PendingWrites:
    """Collects events and states in order; ``due_at`` is when they must be committed (inf: nothing waits).

    Times are readings of the event loop's clock, in seconds.
    """

    def __init__(self) -> None:
        self.due_at = math.inf
        self._events: list[RunEvent] = []
        self._checkpoints: list[CheckpointRow] = []
        self._writes: list[WriteRow] = []
        self._deferred: list[CheckpointRow] = []
        self._waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._events or self._checkpoints or self._writes or self._deferred)

    def add_event(self, event: RunEvent, now: float, token_patience_s: float) -> None:
        """Take an event."""
        self._events.append(event)
        if not is_durable(event):
            patience_s = token_patience_s
        else:
            patience_s = BEGIN_PATIENCE_S if event.type in _BEGINNINGS else END_PATIENCE_S
        self.due_at = min(self.due_at, now + patience_s)

    def add_state(
        self,
        checkpoints: Sequence[CheckpointRow],
        writes: Sequence[WriteRow],
        now: float,
        waiter: asyncio.Future[None],
    ) -> None:
        """Take a state that somebody waits for: a checkpoint is due at once, a task's writes like its end."""
        self._checkpoints.extend(checkpoints)
        self._writes.extend(writes)
        self._waiters.append(waiter)
        self.due_at = min(self.due_at, now if checkpoints else now + END_PATIENCE_S)

    def defer(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Take a state that goes with the next commit, whenever that is."""
        self._deferred.extend(checkpoints)
        self._writes.extend(writes)

    def take(self) -> Batch:
        """All of it; tokens alone leave the deferred state for a commit that is needed anyway."""
        durable = tuple(event for event in self._events if is_durable(event))
        write = RunWrite()
        if durable or self._checkpoints or self._waiters:
            write = RunWrite(durable, (*self._deferred, *self._checkpoints), tuple(self._writes))
            self._deferred, self._checkpoints, self._writes = [], [], []
        batch = Batch(self._events, write, self._waiters)
        self._events, self._waiters = [], []
        self.due_at = math.inf
        return batch
