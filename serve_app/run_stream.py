"""One reading of one run's events: history first, then what happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from actors.stores.store import RunStore
from registries.contracts.runs import RunEvent
from serve_app.event_reader import EventReader
from serve_app.event_tail import EventTail
from serve_app.run_topic import RunTopic
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
        begun_at: int | None = None,
    ) -> None:
        """``begun_at``: the run begins here, after this durable event. All that follows comes to the reader,
        tokens included; only what is older is read from the store."""
        self._store = store
        self._tail = tail
        self._run_id = run_id
        self._tenant = tenant
        self._seen = after
        self._until_waiting = until_waiting
        self._reader = reader or EventReader()
        self._begun_at = begun_at
        self._newest: RunEvent | None = None

    @property
    def _over(self) -> bool:
        return is_over(self._newest, self._until_waiting)

    async def batches(self) -> AsyncGenerator[list[ShownEvent], None]:
        """The events. Raises StoreError, ReaderTooSlow, and what the reader is made to fail with."""
        with self._tail.topic(self._run_id) as topic:
            try:
                if self._is_early(topic):
                    # In before the store is asked: no token is told meanwhile.
                    topic.readers.add(self._reader)
                    if self._begun_at:
                        async for page in self._history(self._begun_at):
                            yield page
                else:
                    # A reader who has all that was fanned out reads it too: only the event itself says
                    # whether it was the end.
                    async for page in self._history():
                        yield page
                    topic.readers.add(self._reader)
                    # Again, for what came before the reader was in: nothing falls between the two.
                    async for page in self._history():
                        yield page
                if self._over:
                    return
                # From what was read, never from what the reader says: others share the topic.
                self._tail.follow(topic, self._newest.seq if self._newest else 0)
                async for batch in self._reader.batches():
                    if lacking := self._lacking(batch):
                        # No further: what the store has beyond the batch would overtake tokens on their way.
                        async for page in self._history(lacking):
                            yield page
                    if fresh := self._fresh(batch):
                        yield fresh
                    if self._over:
                        return
            finally:
                topic.readers.discard(self._reader)

    def _is_early(self, topic: RunTopic) -> bool:
        """Whether nothing was fanned out yet of what this reader must not miss."""
        if self._begun_at is None:
            return False
        return topic.seq is None or topic.seq <= self._begun_at

    async def _history(self, upto: int | None = None) -> AsyncGenerator[list[ShownEvent], None]:
        while True:
            # One further back: a reader who has seen the end already shall learn that it was the end.
            after = self._seen - 1 if self._newest is None and self._seen else self._seen
            page = await self._store.events(self._run_id, self._tenant, after, PAGE)
            if upto is not None:
                page = [event for event in page if event.seq <= upto]
            if page:
                self._newest = page[-1]
            if fresh := [event for event in page if event.seq > self._seen]:
                self._seen = fresh[-1].seq
                yield shown(fresh)
            if len(page) < PAGE:
                return

    def _lacking(self, batch: list[ShownEvent]) -> int:
        """The last durable event that is missing before or between those of the batch; 0 when none is."""
        last, lacking = self._seen, 0
        for item in batch:
            # A token comes after the durable event whose seq it carries.
            before = item.event.seq - (not item.is_token)
            if before > last:
                lacking = before
            last = max(last, item.event.seq)
        return lacking

    def _fresh(self, batch: list[ShownEvent]) -> list[ShownEvent]:
        fresh = [item for item in batch if item.is_news(self._seen)]
        durable = last_durable(fresh)
        if durable is not None:
            self._seen, self._newest = durable.seq, durable
        return fresh
