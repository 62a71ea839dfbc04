"""Listens to one run that clients wait for: to its runner while that tells something, else to the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import cast

import structlog

from actors.stores.json_text import load_json
from actors.stores.records import NewRun
from actors.stores.store import RunStore
from registries.contracts.errors import BudgetError, CapacityError, Conflict, ParleyError, StoreError
from registries.contracts.runs import RunEvent
from serve_app.errors import as_parley_error
from serve_app.event_tail import EventTail
from serve_app.live_run import LiveRun
from serve_app.run_ports import RunMetrics, Runner, RunnerLost
from serve_app.run_topic import RunTopic

DEADLINE_GRACE_S = 5.0
"""How long after a run's deadline its end may take to be written before clients are told here."""
SILENCE_S = 1.0
"""A run that no runner has begun by then is accepted here, so that it is safe whatever becomes of us."""
ACCEPT_TRIES = 5
"""How often a store that is away is asked to accept a silent runner's run before its client hears of it."""
_QUEUES = (RunnerLost, CapacityError, Conflict, StoreError)
"""Answers of a runner after which the run goes on, or begins, somewhere else."""


class RunListener:
    """What a runner's death or refusal means for the client: nothing, the run is followed in the store.

    ``on_queued`` is called when a run was left to the queue.
    """

    def __init__(
        self,
        store: RunStore,
        runner: Runner,
        tail: EventTail,
        metrics: RunMetrics,
        on_queued: Callable[[], None],
        grace_s: float = DEADLINE_GRACE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._store = store
        self._runner = runner
        self._tail = tail
        self._metrics = metrics
        self._on_queued = on_queued
        self._grace_s = grace_s
        self._silence_s = silence_s
        self._log = structlog.get_logger("serve_app.runs")

    async def listen(self, live: LiveRun, asked: NewRun | str | None, seq: int) -> None:
        """Until the run is settled, or will not be for us; never raises but for cancellation.

        ``asked`` is what a runner is to begin: a run's id, or a run that nobody has accepted yet; None only
        follows. ``seq`` is the last event that is known.
        """
        structlog.contextvars.bind_contextvars(run_id=live.run_id)
        try:
            with self._tail.topic(live.run_id) as topic:
                topic.begin(seq)
                topic.listeners.add(live.hear)
                try:
                    async with asyncio.timeout(live.deadline_s + self._grace_s):
                        if asked is not None:
                            await self._stream(live, topic, asked)
                        if not live.is_settled:
                            self._tail.follow(topic, seq)
                        await live.settled()
                finally:
                    topic.listeners.discard(live.hear)
        except TimeoutError:
            # Nothing is written: the deadline is the runners' and the store's to enforce.
            live.fail(BudgetError(f"the run did not end within {live.deadline_s:g} s", param="deadline_s"))
        except asyncio.CancelledError:
            live.fail(CapacityError("this front door is stopping; the run goes on", retry_after_s=1.0))
            raise
        except Exception as error:  # noqa: BLE001 - becomes an error of our tree
            known = as_parley_error(error)
            if known is not error:
                self._log.exception("run_dispatch_failed")
            live.fail(known)

    async def _stream(self, live: LiveRun, topic: RunTopic, asked: NewRun | str) -> None:
        """Fan out what a runner tells, until it tells no more. The run is accepted when this returns."""
        order = asked if isinstance(asked, str) else asked.order
        news = self._runner.run(order) if live.streams else _endings(self._runner.result(order))
        if isinstance(asked, str):
            await self._told(topic, news, live.streams, raises=False)
        else:
            await self._told_or_accepted(live, topic, asked, news)
            if not topic.begun:
                await self._accept(asked)
            self._metrics.record_run_queued()
        if not live.is_settled:
            self._on_queued()

    async def _told_or_accepted(
        self, live: LiveRun, topic: RunTopic, new: NewRun, news: AsyncIterator[Sequence[RunEvent]]
    ) -> None:
        """Fan out; a run that its runner is silent about is accepted here meanwhile. Raises for either."""
        try:
            async with asyncio.TaskGroup() as group:
                late = group.create_task(self._accept_when_silent(new, topic))
                await self._told(topic, news, live.streams, raises=True)
                late.cancel()
        except ExceptionGroup as failed:
            # The second, if there is one, came of the same outage.
            raise failed.exceptions[0] from None

    async def _told(
        self, topic: RunTopic, batches: AsyncIterator[Sequence[RunEvent]], feeds: bool, raises: bool
    ) -> None:
        """Fan out; ``feeds``: these are all events, none must be read elsewhere.

        ``raises`` a runner's refusal of a run that cannot run.
        """
        try:
            async with aclosing(cast("AsyncGenerator[Sequence[RunEvent], None]", batches)) as source:
                async for batch in source:
                    topic.begun, topic.fed = True, feeds
                    topic.publish(batch)
        except _QUEUES as reason:
            self._log.info("run_not_streamed", kind=type(reason).__name__, reason=str(reason))
        except ParleyError as error:
            if raises and not topic.begun:
                raise
            self._log.warning("run_not_streamed", kind=type(error).__name__, reason=error.message)
        finally:
            topic.fed = False

    async def _accept_when_silent(self, new: NewRun, topic: RunTopic) -> None:
        """Raises StoreError when it cannot be: then the runner's call is closed too, which ends it there."""
        for tries in range(1, ACCEPT_TRIES + 1):
            await asyncio.sleep(self._silence_s)
            if topic.begun:
                return
            try:
                await self._accept(new)
                self._on_queued()
                self._tail.follow(topic, 0)
                return
            except StoreError:
                if tries == ACCEPT_TRIES:
                    raise

    async def _accept(self, new: NewRun) -> None:
        try:
            await self._store.accept(new)
        except Conflict:
            # The runner that we lost had accepted it.
            self._log.info("run_accepted_before")


async def _endings(items: AsyncIterator[bytes]) -> AsyncGenerator[Sequence[RunEvent], None]:
    """A runner's word that a run is begun as an empty batch, its end as a batch of one."""
    async with aclosing(cast("AsyncGenerator[bytes, None]", items)) as source:
        async for item in source:
            yield [_trusted(item)] if item else []


def _trusted(item: bytes) -> RunEvent:
    # Made by our own runner from an event: checking it again would take longer than the way it came.
    return RunEvent.model_construct(**load_json(item.decode()))
