"""What a run has still to commit, in order, and until when it may wait for company."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from actors.running.coalescing import is_durable
from actors.stores.records import CheckpointRow, RunWrite, WriteRow
from registries.contracts.runs import NODE_ENDS, RunEvent

TASK_PATIENCE_S = 0.002
"""A task's writes: the checkpoint that follows at once joins their commit, no sibling is waited for."""

END_PATIENCE_S = 0.010
"""What a node made that nothing follows waits so long for the run's end, which as a rule comes at once."""


@dataclass(slots=True)
class Batch:
    """One commit and what is shown after it. ``events`` has tokens too; ``waiters`` wait for the commit."""

    events: list[RunEvent]
    write: RunWrite
    waiters: list[asyncio.Future[None]]


class PendingWrites:
    """Collects events and states; ``due_at`` is when they must be committed (inf: nothing is due).

    An event that says that a node ended is held back, and all after it, until the node's writes are there:
    committed without them, the node would run again after a crash although its end had been told. Times are
    readings of the event loop's clock, in seconds.
    """

    def __init__(self) -> None:
        self.due_at = math.inf
        self._events: list[RunEvent] = []
        self._written: Counter[str] = Counter()
        self._checkpoints: list[CheckpointRow] = []
        self._writes: list[WriteRow] = []
        self._deferred: list[CheckpointRow] = []
        self._waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._events or self.has_state)

    @property
    def has_state(self) -> bool:
        """Whether a state waits that a reader of the database would miss."""
        return bool(self._checkpoints or self._writes or self._deferred)

    def add_event(self, event: RunEvent, now: float, patience_s: float) -> None:
        """Take an event. The end of a node is due with the node's writes, not by itself."""
        self._events.append(event)
        if event.type not in NODE_ENDS:
            self.due_at = min(self.due_at, now + patience_s)

    def add_state(
        self,
        checkpoints: Sequence[CheckpointRow],
        writes: Sequence[WriteRow],
        now: float,
        waiter: asyncio.Future[None],
    ) -> None:
        """Take a state that somebody waits for: a checkpoint is due at once, a task's writes soon."""
        self._checkpoints.extend(checkpoints)
        self._take_writes(writes)
        self._waiters.append(waiter)
        self.due_at = min(self.due_at, now if checkpoints or not writes else now + TASK_PATIENCE_S)

    def defer(self, checkpoints: Sequence[CheckpointRow]) -> None:
        """Take a state that goes with the next commit, whenever that is."""
        self._deferred.extend(checkpoints)

    def hold(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow], now: float) -> None:
        """Take a state that nobody waits for; due when the run's end has not come in time."""
        self._checkpoints.extend(checkpoints)
        self._take_writes(writes)
        self.due_at = min(self.due_at, now + END_PATIENCE_S)

    def take(self, everything: bool = False) -> Batch:
        """What may be committed now; ``everything`` at a run's end, where nothing follows.

        Tokens alone leave the deferred state for a commit that is needed anyway. A task's writes towards a
        checkpoint that is in the same commit are left out: it has them.
        """
        count = len(self._events) if everything else self._ready()
        events, self._events = self._events[:count], self._events[count:]
        durable = tuple(event for event in events if is_durable(event))
        write = RunWrite()
        if durable or self._checkpoints or self._waiters or self._writes:
            checkpoints = (*self._deferred, *self._checkpoints)
            write = RunWrite(durable, checkpoints, _still_needed(self._writes, checkpoints))
            self._deferred, self._checkpoints, self._writes = [], [], []
        batch = Batch(events, write, self._waiters)
        self._waiters = []
        self.due_at = math.inf
        return batch

    def drop_waiters(self) -> list[asyncio.Future[None]]:
        """Those who wait for states that nobody will commit."""
        dropped, self._waiters = self._waiters, []
        return dropped

    def drop_events(self) -> int:
        """Forget the events that are held back, of a run that goes on elsewhere; how many durable ones."""
        dropped, self._events = self._events, []
        return sum(1 for event in dropped if is_durable(event))

    def _take_writes(self, writes: Sequence[WriteRow]) -> None:
        self._writes.extend(writes)
        for task_path in {write.task_path for write in writes}:
            # LangGraph's path of a node's task ends in the node's name ("~__pregel_pull, creator").
            self._written[task_path.rpartition(", ")[2]] += 1

    def _ready(self) -> int:
        """How many of the first events may be committed."""
        for index, event in enumerate(self._events):
            if event.type in NODE_ENDS and event.node is not None:
                if self._written[event.node] == 0:
                    return index
                self._written[event.node] -= 1
        return len(self._events)


def _still_needed(writes: Sequence[WriteRow], checkpoints: Sequence[CheckpointRow]) -> tuple[WriteRow, ...]:
    """Those that say more than the checkpoints: they are half of the rows of a chain of nodes."""
    followed = {(row.thread_id, row.ns, row.parent_id) for row in checkpoints}
    return tuple(row for row in writes if (row.thread_id, row.ns, row.checkpoint_id) not in followed)
