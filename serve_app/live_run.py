"""A run under way, as the front door sees it: its events for one reader, its end for whoever waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from registries.contracts.errors import ParleyError
from registries.contracts.runs import TERMINAL_EVENTS, RunEvent, RunOrder, RunResult

_BACKLOG_EVENTS = 2000
"""A reader this far behind loses tokens (node.completed repeats their text), never durable events."""


class LiveRun:
    """Holds what the dispatching task publishes. Without a reader events are let go, save the end."""

    def __init__(self, order: RunOrder, with_reader: bool) -> None:
        self.order = order
        self.seq = 0
        self.task: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[RunResult] = loop.create_future()
        self._backlog: deque[RunEvent] | None = deque() if with_reader else None
        self._news = asyncio.Event()

    # -- the dispatching task's side

    def accept(self) -> None:
        """The run is committed."""
        self._accepted.set_result(None)

    def publish(self, batch: Sequence[RunEvent]) -> None:
        """Take events; the first terminal one is the end, and what comes after it is let go."""
        for event in batch:
            if self.ended:
                break
            self.seq = max(self.seq, event.seq)
            self._keep(event)
            if event.type in TERMINAL_EVENTS:
                self._ended.set_result(RunResult.model_validate(event.data["result"]))
        self._news.set()

    def fail(self, error: ParleyError) -> None:
        """The run cannot go on; waiting callers get the error."""
        for future in (self._accepted, self._ended):
            if not future.done():
                future.set_exception(error)
                # Retrieved here as well: nobody may be waiting any more.
                future.exception()
        self._news.set()

    def _keep(self, event: RunEvent) -> None:
        if self._backlog is None:
            return
        if event.type == "node.token" and len(self._backlog) >= _BACKLOG_EVENTS:
            return
        self._backlog.append(event)

    # -- the caller's side

    @property
    def is_accepted(self) -> bool:
        """Whether the run is committed."""
        return self._accepted.done() and self._accepted.exception() is None

    @property
    def ended(self) -> bool:
        """Whether the end is known."""
        return self._ended.done()

    async def accepted(self) -> None:
        """Wait until the run is committed; raises StoreError."""
        await asyncio.shield(self._accepted)

    async def result(self) -> RunResult:
        """Wait for the end. Cancelling the waiter leaves the run alone (see ``leave``)."""
        return await asyncio.shield(self._ended)

    async def events(self) -> AsyncIterator[Sequence[RunEvent]]:
        """Batches until the terminal event; closing the iterator is leaving.

        Raises the error of a run that failed before its first event.
        """
        backlog = self._backlog if self._backlog is not None else deque[RunEvent]()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                batch = list(backlog)
                backlog.clear()
                if batch:
                    yield batch
                if self._ended.done() and not backlog:
                    self._ended.result()
                    return
        finally:
            self.leave()

    def leave(self) -> None:
        """The reader is gone: the run goes on, unless its request said ``on_disconnect: cancel``."""
        self._backlog = None
        if self.order.request.on_disconnect == "cancel" and not self.ended and self.task is not None:
            self.task.cancel()
