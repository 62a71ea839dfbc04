"""The one writer of a run: events and states in order, committed under its lease, then shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from actors.running.coalescing import coalesced, is_durable
from actors.running.event_patience import BEGIN_PATIENCE_S, LINGER_S
from actors.running.pending_writes import Batch, PendingWrites
from actors.running.run_reader import RunReader
from actors.stores.records import CheckpointRow, Lease, RunWrite, WriteRow
from actors.stores.store import RunStore
from actors.telemetry.metrics import Metrics
from registries.contracts.errors import LeaseLost, ParleyError, StoreError, StoreFull
from registries.contracts.runs import (
    END_EVENTS,
    SETTLED_EVENTS,
    TOKEN_EVENT,
    EventType,
    RunEvent,
    RunResult,
    Waiting,
)

STORE_PATIENCE_S = 60.0
"""How long a commit is tried again while the database is away; the lease usually ends it before. One that is
full is waited for as long as the lease is held."""
STORE_PAUSE_S = 0.1


class RunLog:
    """EventSink and CheckpointWriter of one held run, and its readers' source.

    Durable events get a gapless seq when they are emitted and are shown only once they are committed, in the
    same commit as the state that they tell of; tokens carry the last seq. ``emit`` never waits, neither for
    the disk nor for a reader, but refuses (LeaseLost) to let a node begin when the lease is no longer sure.
    ``pump`` must run as a task from claim to ``finish``, ``wait`` or ``release``. A lease that is lost makes
    ``pump``, ``keep`` and the endings raise LeaseLost; a database that is away is waited for.
    """

    def __init__(
        self,
        lease: Lease,
        last_seq: int,
        store: RunStore,
        metrics: Metrics,
        is_held: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.time,
        linger_s: Callable[[], float] = lambda: LINGER_S,
        begin_patience_s: Callable[[], float] = lambda: BEGIN_PATIENCE_S,
        patience_s: float = STORE_PATIENCE_S,
        publish: Callable[[Sequence[RunEvent]], None] = lambda events: None,
        is_careful: bool = False,
    ) -> None:
        """``is_careful``: a node begins only when that is committed, so that a run which kills its runners
        leaves the name of the node that does it. Not the rule, since it costs a commit a node."""
        self.run_id = lease.run_id
        self.seq = last_seq
        self._lease = lease
        self._store = store
        self._metrics = metrics
        self._is_held = is_held
        self._now = now
        self._linger_s = linger_s
        self._begin_patience_s = begin_patience_s
        self._patience_s = patience_s
        self._publish = publish
        self._is_careful = is_careful
        self._pending = PendingWrites()
        self._go = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended_by: BaseException | None = None
        """What ended the pump; nobody would commit anything handed in after it."""
        self._shown: list[RunEvent] = []
        self._readers: set[RunReader] = set()

    # -- the nodes' side

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        """Take one event; see flows.ports.EventSink. LeaseLost when a node must not begin any more."""
        if type == "node.started":
            self.check_held()
        self.add(type, node, data, attempt)
        if type == "node.started" and self._is_careful:
            await self.keep((), ())

    def check_held(self) -> None:
        """Raises LeaseLost when the run may be another runner's by now."""
        if not self._is_held():
            raise LeaseLost(f"the lease of run {self.run_id} ran out; another runner goes on with it")

    def add(self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1) -> RunEvent:
        """The same, outside a coroutine and unconditionally."""
        if type != TOKEN_EVENT:
            self.seq += 1
        event = RunEvent.model_construct(
            run_id=self.run_id,
            seq=self.seq,
            time=self._now(),
            type=type,
            node=node,
            attempt=attempt,
            data=dict(data),
        )
        loop = asyncio.get_running_loop()
        patience_s = self._linger_s() if type == TOKEN_EVENT else self._begin_patience_s()
        self._pending.add_event(event, loop.time(), patience_s)
        self._schedule(loop)
        return event

    # -- the checkpointer's side

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Committed when this returns; raises LeaseLost, StoreError."""
        self._refuse_after_the_end()
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._pending.add_state(checkpoints, writes, loop.time(), committed)
        self._schedule(loop)
        await committed

    def defer(self, checkpoints: Sequence[CheckpointRow]) -> None:
        """Goes with the next commit."""
        self._pending.defer(checkpoints)

    async def hold(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Goes with the run's end, or soon without it; does not wait. Raises LeaseLost."""
        self._refuse_after_the_end()
        loop = asyncio.get_running_loop()
        self._pending.hold(checkpoints, writes, loop.time())
        self._schedule(loop)

    async def flush(self) -> None:
        """Every state taken so far is committed; events alone may go on waiting for company."""
        if self._pending.has_state or self._ended_by is not None:
            await self.keep((), ())

    def _refuse_after_the_end(self) -> None:
        if self._ended_by is not None:
            raise LeaseLost(f"run {self.run_id} is written no more") from self._ended_by

    # -- the readers' side

    @property
    def ending(self) -> RunEvent | None:
        """The committed event that ended the run here: terminal, or that it waits for a human."""
        last = self._shown[-1] if self._shown else None
        return last if last is not None and last.type in SETTLED_EVENTS else None

    def reader(self) -> RunReader:
        """A new reader: first the durable events shown since the claim, then everything that comes."""
        return RunReader(self._readers, self._shown)

    def end(self, error: ParleyError | None = None) -> None:
        """No more events will come; readers that did not see the end get the error."""
        if self._timer is not None:
            self._timer.cancel()
        for reader in list(self._readers):
            reader.end(error)

    # -- the owner's side

    async def pump(self) -> None:
        """Commit and show what is due, until an ending is written."""
        try:
            while True:
                await self._go.wait()
                if self._closing:
                    return
                batch = self._take()
                await self._commit(batch, lambda w: self._store.commit(self._lease, w), "events")
        except BaseException as error:
            # A graph that is being ended still hands in what its nodes made, and waits for it.
            self._ended_by = error
            _fail(self._pending.drop_waiters(), error)
            raise

    async def finish(
        self, pump: asyncio.Task[None], result: RunResult, on_committed: Callable[[], None] = lambda: None
    ) -> None:
        """Commit the end, the result and all that is pending; then ``on_committed``; then show it."""
        await self._close(pump)
        self.add(END_EVENTS[result.status], None, {"result": result.model_dump(mode="json")})

        async def commit(write: RunWrite) -> None:
            await self._store.finish(self._lease, result, write)
            on_committed()

        await self._commit(self._take(everything=True), commit, "finish")

    async def wait(self, pump: asyncio.Task[None], result: RunResult, waiting: Waiting) -> None:
        """Commit that the run waits for a human; the lease is given back with it."""
        await self._close(pump)
        data = {"waiting": waiting.model_dump(mode="json"), "result": result.model_dump(mode="json")}
        self.add("run.waiting", waiting.node, data)
        await self._commit(
            self._take(everything=True), lambda w: self._store.wait(self._lease, waiting, w), "wait"
        )

    async def release(self, pump: asyncio.Task[None]) -> None:
        """Commit what is pending and hand the run back to the queue; ends without their state run again."""
        await self._close(pump)
        await self._commit(self._take(), lambda w: self._store.commit(self._lease, w), "events")
        self.seq -= self._pending.drop_events()
        self.add("run.released", None, {"reason": "its runner stops; another one goes on"})
        await self._commit(self._take(), lambda w: self._store.release(self._lease, w), "release")

    async def _close(self, pump: asyncio.Task[None]) -> None:
        self._closing = True
        self._go.set()
        await pump

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due_at = self._pending.due_at
        if due_at <= loop.time():
            self._go.set()
        elif self._timer is None or self._timer.when() > due_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due_at, self._go.set)

    def _take(self, everything: bool = False) -> Batch:
        self._go.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self._pending.take(everything)

    async def _commit(
        self, batch: Batch, commit: Callable[[RunWrite], Awaitable[None]], operation: str
    ) -> None:
        started = time.monotonic()
        try:
            while batch.write or operation != "events":
                try:
                    await commit(batch.write)
                    break
                except StoreError as error:
                    # A full database still renews leases: whoever took the run over would meet the same.
                    is_full = isinstance(error, StoreFull)
                    is_late = time.monotonic() - started > self._patience_s and not is_full
                    if is_late or not self._is_held():
                        raise LeaseLost(f"run {self.run_id} cannot be written: {error.message}") from error
                    await asyncio.sleep(STORE_PAUSE_S)
        except BaseException as error:
            _fail(batch.waiters, error)
            raise
        if batch.write:
            self._metrics.record_commit(operation, time.monotonic() - started)
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._show(batch.events)

    def _show(self, events: Sequence[RunEvent]) -> None:
        if not events:
            return
        self._shown.extend(event for event in events if is_durable(event))
        self._publish(events)
        if self._readers:
            shown = coalesced(events)
            for reader in list(self._readers):
                reader.push(shown)


def _fail(waiters: Sequence[asyncio.Future[None]], error: BaseException) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if isinstance(error, ParleyError):
            waiter.set_exception(error)
            # Retrieved here as well: the graph may be gone before it looks.
            waiter.exception()
        else:
            waiter.cancel()
