"""What a database of runs must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from registries.contracts.generation import Message
from registries.contracts.runs import RunEvent, RunOrder, RunResult


class Store(Protocol):
    """Runs and their durable events; accepted means committed.

    Every method raises StoreError when the database cannot be reached or written; nothing is then
    acknowledged and nothing half-written. Several processes may use one database at once.
    """

    async def accept(self, order: RunOrder, flow_version: str) -> None:
        """Write the run as ``queued``; committed when this returns. Conflict for a run_id that exists."""
        ...

    async def claim(self, order: RunOrder, flow_version: str) -> int | None:
        """Take the run, accepting it if nobody has; answers the seq of its last event, 0 when it has none.

        A queued run becomes ``running``; one that runs already is taken over by an order with a higher
        ``attempt`` only (its runner died). None, with nothing written, when the run cannot be taken.
        """
        ...

    async def append_events(self, events: Sequence[RunEvent]) -> None:
        """Write durable events of one run in one commit; a (run_id, seq) that exists is a Conflict."""
        ...

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool:
        """The terminal state, the result and the last events in one commit.

        False, with nothing written, when the run had already ended: the first terminal state stays.
        """
        ...

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        """The run as JSON values (run_id, status, flow, request, result …); None for another tenant's too."""
        ...

    async def events(self, run_id: str, tenant: str, after: int = 0) -> list[RunEvent]:
        """Durable events with seq > after, in order."""
        ...

    async def history(self, conversation_id: str, tenant: str, limit: int) -> list[Message]:
        """The last ``limit`` questions and answers of the conversation's completed runs, newest last."""
        ...

    async def mark_interrupted(self, reason: str) -> int:
        """Fail every run left queued or running by a runtime that died; how many there were.

        Called once, at the start, before anything can accept a run.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed in, then let go; idempotent."""
        ...
