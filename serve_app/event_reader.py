"""One reader of one run's events: a bounded buffer between who publishes and who sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from registries.contracts.errors import CapacityError, ParleyError
from serve_app.shown_event import ShownEvent

MAX_BEHIND_EVENTS = 1000
MAX_BEHIND_BYTES = 1_000_000
"""More than 20 s of a fast model's tokens; a client that is further behind does better to come again."""


class ReaderTooSlow(CapacityError):
    """The reader was cut off, so that its backlog does not fill the memory of the server."""


class EventReader:
    """Takes events at once, or cuts itself off; ``batches`` hands them on."""

    def __init__(self, max_events: int = MAX_BEHIND_EVENTS, max_bytes: int = MAX_BEHIND_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._buffer: list[ShownEvent] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._error: ParleyError | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it takes no more."""
        return self._error is not None

    def push(self, events: Sequence[ShownEvent]) -> None:
        """Take events. What came in time is always taken whole: one result may be larger than the bound."""
        if self._error is not None:
            return
        behind = len(self._buffer)
        if behind and (behind + len(events) > self._max_events or self._bytes > self._max_bytes):
            self.fail(
                ReaderTooSlow(
                    f"this reader is more than {self._max_events} events or {self._max_bytes} bytes behind; "
                    "connect again with Last-Event-ID",
                    retry_after_s=1.0,
                )
            )
            self._buffer.clear()
            return
        self._buffer.extend(events)
        self._bytes += sum(len(item.json) for item in events)
        self._news.set()

    def fail(self, error: ParleyError) -> None:
        """End the reading with this error, after what is buffered."""
        if self._error is None:
            self._error = error
            self._news.set()

    async def batches(self) -> AsyncIterator[list[ShownEvent]]:
        """What was pushed, in order, without end; raises the error that it failed with."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._buffer, self._bytes = self._buffer, [], 0
            if batch:
                yield batch
            if self._error is not None and not self._buffer:
                raise self._error
