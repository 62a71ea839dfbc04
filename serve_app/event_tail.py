"""Follows runs through the store for everybody in this process, with one query at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import structlog

from actors.stores.live_events import LiveEvents, NoLiveEvents
from actors.stores.store import RunStore
from registries.contracts.errors import StoreError
from registries.contracts.runs import RunEvent
from serve_app.live_feed import LiveFeed
from serve_app.run_topic import RunTopic

BUSY_EVERY_S = 0.02
"""An event is on average half of this, and a query, old when it is seen here."""
IDLE_EVERY_S = 0.04
"""An event after a silence, such as a long node's end, is shown within 50 ms at the 95th percentile all the
same. A query for 256 quiet runs takes 0.2 ms (SQLite), all that asking 1 % of a core. Rejected: slower for
runs that keep silent for long, whose readers are promised no less."""
LIVE_EVERY_S = 0.1
"""Where events come by themselves, and only what was missed is asked for."""
IDLE_AFTER_S = 2.0
STORE_AWAY_S = 0.25


class EventTail:
    """Topics of followed runs, and the one task that asks the store for their news.

    All runs are asked for together, so that a busy one never holds up the others; while nothing happens for
    ``IDLE_AFTER_S`` it asks less often, and still less where events come ``live``. A store that is away is
    asked again until it is back.
    """

    def __init__(self, store: RunStore, live: LiveEvents | None = None) -> None:
        self._store = store
        self._feed = LiveFeed(live or NoLiveEvents())
        self._topics: dict[str, RunTopic] = {}
        self._needed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._news_at = 0.0
        self._away = False

    def __len__(self) -> int:
        return len(self._topics)

    @contextlib.contextmanager
    def topic(self, run_id: str) -> Iterator[RunTopic]:
        """The run's topic, shared by all who are inside such a block."""
        topic = self._topics.setdefault(run_id, RunTopic(run_id))
        topic.users += 1
        try:
            yield topic
        finally:
            topic.users -= 1
            if topic.users == 0:
                del self._topics[run_id]
                self._feed.end(run_id)

    def follow(self, topic: RunTopic, seq: int) -> None:
        """Fan out what comes after ``seq``; read from the store while no runner's stream tells it."""
        topic.begin(seq)
        topic.wanted = True
        self._feed.begin(topic)
        self._news_at = asyncio.get_running_loop().time()
        self._needed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="event-tail")

    async def aclose(self) -> None:
        """Follow nothing any more; idempotent."""
        await self._feed.aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._needed.clear()
            followed = {topic.run_id: topic.seq or 0 for topic in self._topics.values() if topic.is_followed}
            if not followed:
                await self._needed.wait()
                continue
            try:
                if self._take(await self._ask(followed)):
                    self._news_at = loop.time()
            except Exception:  # noqa: BLE001 - everybody who follows a run here waits for this task
                structlog.get_logger("serve_app.runs").exception("events_not_shown")
                await asyncio.sleep(STORE_AWAY_S)
            await asyncio.sleep(self._pause_s(loop.time()))

    def _pause_s(self, now: float) -> float:
        if self._away:
            return STORE_AWAY_S
        if self._feed.is_live:
            return LIVE_EVERY_S
        return BUSY_EVERY_S if now - self._news_at < IDLE_AFTER_S else IDLE_EVERY_S

    async def _ask(self, followed: dict[str, int]) -> list[RunEvent]:
        log = structlog.get_logger("serve_app.runs")
        try:
            events = await self._store.tail(followed)
        except StoreError as error:
            if not self._away:
                log.warning("events_not_read", error=error.message)
            self._away = True
            return []
        if self._away:
            log.info("events_read_again")
        self._away = False
        return events

    def _take(self, events: list[RunEvent]) -> bool:
        by_run: dict[str, list[RunEvent]] = defaultdict(list)
        for event in events:
            by_run[event.run_id].append(event)
        for run_id, news in by_run.items():
            # Gone meanwhile: its last reader left while the store was asked.
            if run_id in self._topics:
                self._topics[run_id].publish(news)
        return bool(events)
