"""The events of one run in order: numbered, committed, then shown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from actors.running.coalescing import coalesced, is_durable
from actors.stores.store import Store
from actors.telemetry.metrics import Metrics
from registries.contracts.errors import ParleyError, StoreError
from registries.contracts.runs import EventType, RunEvent, RunResult

LINGER_S = 0.02
"""How long tokens wait for company; readers see this as the grain of the stream."""
STORE_PATIENCE_S = 10.0
"""How long a result waits for a database that cannot be written before the run is given up."""
STORE_PAUSE_S = 0.25
_END_TYPES: dict[str, EventType] = {
    "completed": "run.completed",
    "failed": "run.failed",
    "cancelled": "run.cancelled",
}


class RunLog:
    """The EventSink of one run, its writer, and its readers' source.

    Durable events get a gapless seq when they are emitted and are shown only once they are committed;
    tokens carry the last seq. ``emit`` never waits, neither for the disk nor for a reader. ``pump`` must run
    as a task from claim to ``finish``. Readers that come late get what is still to come, not what was.
    """

    def __init__(
        self,
        run_id: str,
        store: Store,
        metrics: Metrics,
        last_seq: int = 0,
        now: Callable[[], float] = time.time,
        linger_s: Callable[[], float] = lambda: LINGER_S,
        patience_s: float = STORE_PATIENCE_S,
    ) -> None:
        self.run_id = run_id
        self.seq = last_seq
        self._store = store
        self._metrics = metrics
        self._now = now
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._pending: list[RunEvent] = []
        self._news = asyncio.Event()
        self._durable_news = asyncio.Event()
        self._closing = False
        self._readers: set[RunReader] = set()

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        """Take one event; see flows.ports.EventSink."""
        self.add(type, node, data, attempt)

    def add(self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1) -> RunEvent:
        """The same, outside a coroutine."""
        if type != "node.token":
            self.seq += 1
        event = RunEvent(
            run_id=self.run_id,
            seq=self.seq,
            time=self._now(),
            type=type,
            node=node,
            attempt=attempt,
            data=dict(data),
        )
        self._pending.append(event)
        self._news.set()
        if is_durable(event):
            self._durable_news.set()
        return event

    def reader(self) -> RunReader:
        """A new reader of everything from now on."""
        reader = RunReader(self._readers)
        self._readers.add(reader)
        return reader

    async def pump(self) -> None:
        """Commit and show what comes, until ``finish``; a database that is away is waited for."""
        while not self._closing:
            await self._news.wait()
            if not self._durable_news.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger_s()):
                        await self._durable_news.wait()
            if self._closing:
                return
            batch = self._take()
            try:
                await self._commit([e for e in batch if is_durable(e)])
            except StoreError:
                self._give_back(batch)
                await asyncio.sleep(STORE_PAUSE_S)
            else:
                self._show(batch)

    async def finish(self, pump: asyncio.Task[None], result: RunResult) -> bool:
        """Commit the end, the result and what is pending together; then show it.

        False when somebody else had ended the run. Raises StoreError after ``patience_s`` of trying.
        """
        self._closing = True
        self._news.set()
        self._durable_news.set()
        await pump
        self.add(_END_TYPES[result.status], None, {"result": result.model_dump(mode="json")})
        batch = self._take()
        durable = [e for e in batch if is_durable(e)]
        started = time.monotonic()
        while True:
            try:
                first = await self._store.finish(self.run_id, result, durable)
                break
            except StoreError:
                if time.monotonic() - started > self._patience_s:
                    raise
                await asyncio.sleep(STORE_PAUSE_S)
        self._metrics.record_commit("finish", time.monotonic() - started)
        if first:
            self._show(batch)
        return first

    def end(self, error: ParleyError | None = None) -> None:
        """No more events will come; readers that did not see the end get the error."""
        for reader in list(self._readers):
            reader.end(error)

    def _take(self) -> list[RunEvent]:
        batch, self._pending = self._pending, []
        self._news.clear()
        self._durable_news.clear()
        return batch

    def _give_back(self, batch: list[RunEvent]) -> None:
        self._pending = batch + self._pending
        self._news.set()
        self._durable_news.set()

    async def _commit(self, events: Sequence[RunEvent]) -> None:
        if events:
            started = time.monotonic()
            await self._store.append_events(events)
            self._metrics.record_commit("events", time.monotonic() - started)

    def _show(self, batch: Sequence[RunEvent]) -> None:
        shown = coalesced(batch)
        for reader in list(self._readers):
            reader.push(shown)


class RunReader:
    """One reader's backlog; a slow one merges tokens instead of growing by their number."""

    def __init__(self, registry: set[RunReader]) -> None:
        self._registry = registry
        self._backlog: list[RunEvent] = []
        self._news = asyncio.Event()
        self._ended = False
        self._error: ParleyError | None = None

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
        """Lists of events until the run's end; raises the error that ended it before its first event."""
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
