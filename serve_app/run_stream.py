"""One reading of one run's events: history first, then what happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from actors.stores.store import RunStore
from registries.contracts.runs import RunEvent
from serve_app.event_reader import EventReader
from serve_app.event_tail import EventTail
from serve_app.shown_event import ShownEvent, is_over, last_durable, shown

PAGE = 100
"""Events of a history that are held at once for one reader."""


class RunStream:
    """Durable events after ``after``, each once and without a gap; tokens while they can be had.

    It ends after the newest event when that is terminal (or ``run.waiting``, if asked). History comes in
    pages straight from the store, so that a long one never fills a buffer.
    """

    def __init__(
        self,
        store: RunStore,
        tail: EventTail,
        run_id: str,
        tenant: str,
        after: int = 0,
        until_waiting: bool = False,
        reader: EventReader | None = None,
    ) -> None:
        self._store = store
        self._tail = tail
        self._run_id = run_id
        self._tenant = tenant
        self._seen = after
        self._until_waiting = until_waiting
        self._reader = reader or EventReader()
        self._newest: RunEvent | None = None

    @property
    def _over(self) -> bool:
        return is_over(self._newest, self._until_waiting)

    async def batches(self) -> AsyncGenerator[list[ShownEvent], None]:
        """The events. Raises StoreError, ReaderTooSlow, and what the reader is made to fail with."""
        with self._tail.topic(self._run_id) as topic:
            try:
                # Left out for a run that begins here alone. A reader who has all that was fanned out reads
                # it too: only the event itself says whether it was the end.
                if self._seen or topic.seq != 0:
                    async for page in self._history():
                        yield page
                    topic.readers.add(self._reader)
                    # Again, for what came before the reader was in: nothing falls between the two.
                    async for page in self._history():
                        yield page
                topic.readers.add(self._reader)
                if self._over:
                    return
                # From what was read, never from what the reader says: others share the topic.
                self._tail.follow(topic, self._newest.seq if self._newest else 0)
                async for batch in self._reader.batches():
                    if self._lacks(batch):
                        async for page in self._history():
                            yield page
                    if fresh := self._fresh(batch):
                        yield fresh
                    if self._over:
                        return
            finally:
                topic.readers.discard(self._reader)

    async def _history(self) -> AsyncGenerator[list[ShownEvent], None]:
        while True:
            # One further back: a reader who has seen the end already shall learn that it was the end.
            after = self._seen - 1 if self._newest is None and self._seen else self._seen
            page = await self._store.events(self._run_id, self._tenant, after, PAGE)
            if page:
                self._newest = page[-1]
            if fresh := [event for event in page if event.seq > self._seen]:
                self._seen = fresh[-1].seq
                yield shown(fresh)
            if len(page) < PAGE:
                return

    def _lacks(self, batch: list[ShownEvent]) -> bool:
        """Whether durable events are missing before or between those of the batch."""
        last = self._seen
        for item in batch:
            if not item.is_token and item.event.seq > last:
                if item.event.seq > last + 1:
                    return True
                last = item.event.seq
        return False

    def _fresh(self, batch: list[ShownEvent]) -> list[ShownEvent]:
        fresh = [item for item in batch if item.is_news(self._seen)]
        durable = last_durable(fresh)
        if durable is not None:
            self._seen, self._newest = durable.seq, durable
        return fresh
