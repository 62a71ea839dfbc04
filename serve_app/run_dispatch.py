"""Accepts runs, hands them to a runner, and follows those that clients wait for until they settle."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from actors.running.task_owner import TaskOwner
from actors.stores.live_events import live_events
from actors.stores.records import Accepted, IdempotencyKey, NewRun
from actors.stores.store import Store
from flows.ports import Clock
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import (
    CapacityError,
    Conflict,
    NotFound,
    ParleyError,
    StoreError,
)
from registries.contracts.runs import SETTLED_STATUSES, RunOrder, RunStatus
from registries.specs import FlowSpec
from serve_app.catalog_checks import check_run_order
from serve_app.event_tail import EventTail
from serve_app.live_run import LiveRun
from serve_app.queue_gate import QueueGate
from serve_app.run_ask import Attended, RunAsk
from serve_app.run_listener import DEADLINE_GRACE_S, SILENCE_S, RunListener
from serve_app.run_outcome import settled_event
from serve_app.run_ports import RunMetrics, Runner, RunnerLost


class RunDispatch:
    """Everything that begins a run, or goes on with one, comes through here.

    A run that a client waits for has one task (see RunListener), made in an empty context: Ray Serve cancels
    the handle calls of an HTTP request that was cancelled, and a run outlives its clients. A background
    run has no task: it is committed, and the runners are told to look. ``aclose`` ends the tasks; the
    runs go on.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        catalog: Catalog,
        store: Store,
        runner: Runner,
        clock: Clock,
        metrics: RunMetrics,
        new_id: Callable[[], str],
        grace_s: float = DEADLINE_GRACE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.tail = EventTail(store, live_events(store))
        self._config = config
        self._catalog = catalog
        self._store = store
        self._runner = runner
        self._clock = clock
        self._metrics = metrics
        self._new_id = new_id
        self._listener = RunListener(store, runner, self.tail, metrics, self.wake, grace_s, silence_s)
        self._gate = QueueGate(store, config.max_queued_runs)
        self._owner = TaskOwner()
        self._live: dict[str, LiveRun] = {}
        self._max_live = config.runner_max_replicas * config.runner_max_ongoing + config.runner_max_queued
        self._wake_wanted = False
        self._waking = False
        self._log = structlog.get_logger("serve_app.runs")

    @property
    def live(self) -> int:
        """Runs that clients of this process wait for."""
        return len(self._live)

    async def enqueue(self, ask: RunAsk) -> Accepted:
        """Commit a background run and tell the runners; raises as ``begin`` does."""
        if (known := await self._known(ask)) is not None:
            return known
        order, flow = self._order(ask)
        try:
            await self._gate.enter()
        except CapacityError:
            self._metrics.record_rejected("queue_full")
            raise
        new = await self._new_run(ask, order, flow)
        accepted = await self._accept(new)
        self.wake()
        return accepted

    async def begin(self, ask: RunAsk, streams: bool) -> Attended:
        """A run that a client waits for, on its way; with a key that was seen: the run that it made.

        ``streams``: the client wants its events, and not the end alone.

        Raises NotFound or ValidationError (see check_run_order), KeyReused, CapacityError, StoreError. A run
        without a key is accepted by the runner that begins it, in one commit with the claim, or here when
        none does; its errors come where it is waited for.
        """
        if (known := await self._known(ask)) is not None:
            return await self.attend(known.run_id, ask)
        order, flow = self._order(ask)
        self._check_room()
        new = await self._new_run(ask, order, flow)
        run_id, deadline_s = order.run_id, order.deadline_s
        if ask.key is None and ask.fork is None:
            return Attended(self._open(run_id, ask, 0, deadline_s, new, 0, streams), False)
        accepted = await self._accept(new)
        if not accepted.created:
            return await self.attend(accepted.run_id, ask)
        live = self._open(run_id, ask, 0, deadline_s, run_id, accepted.last_seq, streams)
        return Attended(live, False)

    async def go_on(
        self, queue_again: Callable[[], Awaitable[Accepted]], ask: RunAsk, deadline_s: float, streams: bool
    ) -> Attended:
        """Put a run back into the queue (restart, resume) and attend it from there on.

        Raises CapacityError before anything is written, and what ``queue_again`` raises.
        """
        if (known := await self._known(ask)) is not None:
            return await self.attend(known.run_id, ask)
        self._check_room()
        accepted = await queue_again()
        if not accepted.created:
            return await self.attend(accepted.run_id, ask)
        run_id, seq = accepted.run_id, accepted.last_seq
        return Attended(self._open(run_id, ask, seq - 1, deadline_s, run_id, seq, streams), False)

    async def attend(self, run_id: str, ask: RunAsk) -> Attended:
        """A run that exists: the one under way here, else what the store tells of it."""
        if run_id not in self._live:
            row = await self._store.get(run_id, ask.caller.tenant)
            if row is None:
                raise NotFound(f"run {run_id!r} is no longer stored", param="run_id")
            if row["status"] in SETTLED_STATUSES:
                live = LiveRun(run_id, ask.caller, 0, 0.0, False)
                live.hear(await settled_event(self._store, row, ask.caller.tenant))
                return Attended(live, True)
            if run_id not in self._live:
                self._check_room()
                left_s = max(0.0, row["deadline_at"] - self._clock.time())
                return Attended(self._open(run_id, ask, 0, left_s, None, row["last_seq"]), True)
        live = self._live[run_id]
        live.clients += 1
        return Attended(live, True)

    def leave(self, live: LiveRun) -> None:
        """A client has its answer, or is gone. The run goes on, unless it was to end with its last one."""
        live.clients -= 1
        if live.clients == 0 and live.cancels and not live.is_settled:
            self._spawn(self._abandon(live), f"abandon-{live.run_id}")

    async def cancel(self, run_id: str, tenant: str, key: IdempotencyKey | None = None) -> RunStatus:
        """Written first, which is what counts; then whoever holds the run is told. See Store.cancel."""
        status = await self._store.cancel(run_id, tenant, key)
        if status == "running":
            self._spawn(self._tell_cancelled(run_id), f"cancel-{run_id}")
        return status

    def wake(self) -> None:
        """Tell a runner to look at the queue; calls that come while one is told become one."""
        self._wake_wanted = True
        if not self._waking:
            self._waking = True
            self._spawn(self._wake(), "wake-runners")

    async def aclose(self) -> None:
        """Stop listening to every run."""
        await self._owner.cancel_all()
        await self.tail.aclose()

    # -- accepting

    async def _known(self, ask: RunAsk) -> Accepted | None:
        """What the request's key stands for. Asked before all that could refuse a repetition: a full queue,
        a flow that has changed since, a parent whose checkpoints were pruned."""
        return None if ask.key is None else await self._store.known_run(ask.caller.tenant, ask.key)

    def _order(self, ask: RunAsk) -> tuple[RunOrder, FlowSpec]:
        order = RunOrder(
            run_id=self._new_id(),
            request_id=ask.request_id,
            request=ask.request,
            deadline_s=ask.request.deadline_s or self._config.default_deadline_s,
            tenant=ask.caller.tenant,
            user=ask.caller.user,
            traceparent=ask.traceparent,
        )
        return order, check_run_order(order, self._catalog, ask.fork.flow if ask.fork else None)

    async def _new_run(self, ask: RunAsk, order: RunOrder, flow: FlowSpec) -> NewRun:
        if ask.fork is None:
            return NewRun(order, flow.version, flow.document, ask.key)
        state = await ask.fork.state(order)
        return NewRun(order, flow.version, flow.document, ask.key, ask.fork.parent, state)

    def _check_room(self) -> None:
        if self.live >= self._max_live:
            self._metrics.record_rejected("runs_full")
            raise CapacityError(f"{self.live} runs are under way, the limit; try again", retry_after_s=1.0)

    async def _accept(self, new: NewRun) -> Accepted:
        """Accepted even when the client leaves meanwhile: then the run is like one that was left later."""
        accepting = asyncio.create_task(self._store.accept(new))
        try:
            accepted = await asyncio.shield(accepting)
        except asyncio.CancelledError:
            self._spawn(self._left_behind(accepting, new.order), f"left-{new.order.run_id}")
            raise
        if accepted.created:
            self._metrics.record_run_queued()
        return accepted

    async def _left_behind(self, accepting: asyncio.Task[Accepted], order: RunOrder) -> None:
        await asyncio.wait({accepting})
        if accepting.cancelled() or accepting.exception() is not None or not accepting.result().created:
            return
        if order.request.on_disconnect == "cancel":
            await self._store.cancel(order.run_id, order.tenant)
        else:
            self.wake()

    # -- runs that are waited for

    def _open(
        self,
        run_id: str,
        ask: RunAsk,
        after: int,
        deadline_s: float,
        asked: NewRun | str | None,
        seq: int,
        streams: bool = False,
    ) -> LiveRun:
        begun_at = None if asked is None else seq
        live = LiveRun(run_id, ask.caller, after, deadline_s, ask.cancels, streams, begun_at)
        live.clients = 1
        self._live[run_id] = live
        live.task = self._spawn(self._listen(live, asked, seq), f"run-{run_id}")
        return live

    async def _listen(self, live: LiveRun, asked: NewRun | str | None, seq: int) -> None:
        try:
            await self._listener.listen(live, asked, seq)
        finally:
            self._live.pop(live.run_id, None)

    async def _abandon(self, live: LiveRun) -> None:
        """The last client of a run that was to end with it went away."""
        try:
            try:
                await self.cancel(live.run_id, live.caller.tenant)
            except NotFound:
                # Nobody has accepted it yet. Closing the call to the runner ends that; once more, in case
                # that it had been accepted in this moment.
                await self._close(live)
                await self.cancel(live.run_id, live.caller.tenant)
        except (NotFound, Conflict):
            self._log.info("left_run_needs_no_cancelling", run_id=live.run_id)
        except StoreError as error:
            self._log.warning("left_run_not_cancelled", run_id=live.run_id, error=error.message)
            await self._tell_cancelled(live.run_id)

    async def _close(self, live: LiveRun) -> None:
        if live.task is not None:
            live.task.cancel()
            await asyncio.wait({live.task})

    async def _tell_cancelled(self, run_id: str) -> None:
        try:
            await self._runner.cancel(run_id)
        except (RunnerLost, ParleyError) as error:
            # Its holder reads it with the next renewal of the lease.
            self._log.info("runners_not_told", run_id=run_id, error=str(error))

    async def _wake(self) -> None:
        try:
            while self._wake_wanted:
                self._wake_wanted = False
                await self._runner.wake()
        except (RunnerLost, ParleyError) as error:
            # Runners look by themselves, every second.
            self._log.info("runners_not_told", error=str(error))
        finally:
            self._waking = False

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = contextvars.Context().run(self._owner.start, work, name)
        return task
