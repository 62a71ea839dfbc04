"""One reader of a run that is under way here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from actors.running.coalescing import coalesced
from registries.contracts.errors import ParleyError
from registries.contracts.runs import RunEvent


class RunReader:
    """One reader's backlog; its tokens are merged when it takes them."""

    def __init__(self, registry: set[RunReader], first: Sequence[RunEvent] = ()) -> None:
        self._registry = registry
        self._backlog: list[RunEvent] = list(first)
        self._news = asyncio.Event()
        self._ended = False
        self._error: ParleyError | None = None
        if first:
            self._news.set()
        registry.add(self)

    def push(self, events: Sequence[RunEvent]) -> None:
        """Give events."""
        self._backlog.extend(events)
        self._news.set()

    def end(self, error: ParleyError | None) -> None:
        """Nothing more will come."""
        self._ended, self._error = True, error
        self._registry.discard(self)
        self._news.set()

    async def batches(self) -> AsyncIterator[list[RunEvent]]:
        """Lists of events until nothing more comes; then raises the error that it ended with, if any."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                batch, self._backlog = coalesced(self._backlog), []
                if batch:
                    yield batch
                if self._ended and not self._backlog:
                    if self._error is not None:
                        raise self._error
                    return
        finally:
            self._registry.discard(self)
