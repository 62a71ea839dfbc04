"""Brings followed runs what other processes tell of them, tokens too, without asking the store."""

from __future__ import annotations

import asyncio

from actors.running.task_owner import TaskOwner
from actors.stores.live_events import LiveEvents
from serve_app.run_topic import RunTopic


class LiveFeed:
    """One subscription a followed topic. It may miss anything: whoever uses it asks the store as well."""

    def __init__(self, live: LiveEvents) -> None:
        self._live = live
        self._owner = TaskOwner()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def is_live(self) -> bool:
        """Whether events may come this way now."""
        return self._live.is_live

    def begin(self, topic: RunTopic) -> None:
        """Listen for the topic's run until ``end``."""
        if topic.run_id not in self._tasks:
            self._tasks[topic.run_id] = self._owner.start(self._listen(topic), "live-feed")

    def end(self, run_id: str) -> None:
        """Listen for this run no more."""
        task = self._tasks.pop(run_id, None)
        if task is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Listen for none; idempotent."""
        self._tasks.clear()
        await self._owner.cancel_all()

    async def _listen(self, topic: RunTopic) -> None:
        async for batch in self._live.subscribe(topic.run_id, topic.seq or 0):
            # A runner's own stream brings the same, and tokens have no number to tell a second one by.
            if topic.is_followed:
                topic.publish(batch)
