"""A run that clients of this process wait for: how it ends, or that it waits for a human."""

from __future__ import annotations

import asyncio
import weakref

from registries.contracts.errors import ParleyError
from registries.contracts.runs import SETTLED_EVENTS, RunEvent
from serve_app.caller import Caller
from serve_app.event_reader import EventReader


class LiveRun:
    """Settled by the first terminal or waiting event; shared by all clients that attend the run.

    ``after`` is the last event that a stream of it leaves out. ``cancels`` when its last client leaves.
    """

    def __init__(
        self,
        run_id: str,
        caller: Caller,
        after: int,
        deadline_s: float,
        cancels: bool,
        streams: bool = False,
        begun_at: int | None = None,
    ) -> None:
        self.run_id = run_id
        self.caller = caller
        self.after = after
        self.deadline_s = deadline_s
        self.cancels = cancels
        self.streams = streams
        """Whether its first client wants the events, and not the end alone."""
        self.begun_at = begun_at
        """The last durable event before it began here; None for one that was under way already."""
        self.clients = 0
        self.task: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[RunEvent] = asyncio.get_running_loop().create_future()
        self._readers: weakref.WeakSet[EventReader] = weakref.WeakSet()

    @property
    def is_settled(self) -> bool:
        """Whether it is known how it goes out, be it an error."""
        return self._settled.done()

    def hear(self, event: RunEvent) -> None:
        """Take an event of the run."""
        if not self._settled.done() and event.type in SETTLED_EVENTS:
            self._settled.set_result(event)

    def fail(self, error: ParleyError) -> None:
        """Its clients get this error: the run cannot begin, or its end cannot be waited for."""
        if not self._settled.done():
            self._settled.set_exception(error)
            # Retrieved here as well: nobody may be waiting any more.
            self._settled.exception()
        for reader in list(self._readers):
            reader.fail(error)

    def reader(self) -> EventReader:
        """A reader for one client's stream, which ends with the error when the run fails here."""
        reader = EventReader()
        self._readers.add(reader)
        if self._settled.done() and (error := self._settled.exception()) is not None:
            assert isinstance(error, ParleyError)
            reader.fail(error)
        return reader

    async def settled(self) -> RunEvent:
        """The event that settles it. Cancelling the waiter leaves the run alone."""
        return await asyncio.shield(self._settled)
