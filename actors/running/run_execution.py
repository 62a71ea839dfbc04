"""One held run: from its claim to a committed end, a human's turn, or another runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from actors.outputs import PreparedArtifact, prepare_artifact
from actors.running.audience import Audience
from actors.running.checkpoint_saver import CheckpointSaver
from actors.running.event_patience import BEGIN_PATIENCE_S
from actors.running.held_generator import HeldGenerator
from actors.running.observed_events import ObservedEvents
from actors.running.patient_generator import PatientGenerator
from actors.running.ports import GpuResources, StoredHistory, SystemClock
from actors.running.run_log import RunLog
from actors.stores.records import ClaimedRun
from actors.stores.store import Store
from actors.telemetry.metrics import Metrics
from actors.telemetry.tracing import current_traceparent, mark_error, start_span
from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.node_context import NodePorts
from flows.nodes.run_payload import error_fact
from flows.ports import EventSink, Generator, Placement
from flows.resumption import where_stopped
from registries.contracts.errors import (
    BudgetError,
    CancelledRun,
    CapacityError,
    InternalError,
    LeaseLost,
    ParleyError,
    StoreError,
)
from registries.contracts.generation import Usage
from registries.contracts.runs import NodeResult, RunEvent, RunResult, RunTimings
from registries.specs import FlowSpec

DEADLINE_GRACE_S = 2.0
"""The flow ends itself at its deadline; this long after it, the runner does."""
Stop = Literal["cancel", "hand_over", "lost"]


@dataclass(frozen=True, slots=True)
class RunParts:
    """What every run of a runner shares. ``placement`` makes the port for one run's sink and its models, with
    what raises LeaseLost when the run may be somebody else's.

    ``publish`` shows events to readers in other processes, after their commit.
    """

    generator: Generator
    store: Store
    graphs: FlowGraphs
    metrics: Metrics
    placement: Callable[[EventSink, Generator, Callable[[], None]], Placement]
    resources: GpuResources
    outputs_root: Path
    linger_s: Callable[[], float]
    begin_patience_s: Callable[[], float] = lambda: BEGIN_PATIENCE_S
    publish: Callable[[Sequence[RunEvent]], None] = lambda events: None


class HandedOver(CapacityError):
    """The run goes on at another runner; told to readers here, who follow it through the store."""


class RunExecution:
    """Owns one run. ``work`` is its task; readers come from ``log``.

    It ends by ``cancel`` (committed as cancelled), ``hand_over`` (back to the queue), ``lose`` (nothing is
    written any more), or by itself.
    """

    def __init__(
        self,
        claimed: ClaimedRun,
        flow: FlowSpec,
        parts: RunParts,
        is_held: Callable[[], bool] = lambda: True,
        audience: Audience = Audience(),
    ) -> None:
        self.order = claimed.order
        self.lease = claimed.lease
        self.log = RunLog(
            claimed.lease,
            claimed.last_seq,
            parts.store,
            parts.metrics,
            is_held,
            linger_s=parts.linger_s,
            begin_patience_s=(lambda: BEGIN_PATIENCE_S) if audience.events else parts.begin_patience_s,
            publish=parts.publish,
            is_careful=claimed.order.attempt > 1,
        )
        self.task: asyncio.Task[None] | None = None
        self.error: ParleyError | None = None
        """Why it ended here without an end of its own."""
        self._stream_tokens = audience.tokens
        self._claimed = claimed
        self._flow = flow
        self._parts = parts
        self._began = time.monotonic()
        self._stop: Stop | None = None
        self._reason: ParleyError | None = None
        self._begun = self._closing = False

    def cancel(self, reason: ParleyError) -> None:
        """End the run with this error: CancelledRun makes it cancelled, any other failed."""
        self._end("cancel", reason)

    def leave(self) -> None:
        """Whoever asked for it is gone: cancel the run if its request says so, else it goes on."""
        if self.order.request.on_disconnect == "cancel":
            self.cancel(CancelledRun("the client went away"))

    def hand_over(self) -> None:
        """Give the run back to the queue; what its nodes have committed stays."""
        self._end("hand_over", HandedOver("this runner stops; the run goes on at another one"))

    def lose(self) -> None:
        """The lease is gone: stop, and write nothing."""
        self._end("lost", LeaseLost(f"run {self.order.run_id} was taken over by another runner"))

    async def work(self) -> None:
        """Execute and commit; whatever ends it is told to the readers."""
        self._begun = True
        order = self.order
        structlog.contextvars.bind_contextvars(request_id=order.request_id, run_id=order.run_id)
        attributes = {"workflow.id": order.run_id, "workflow.type": self._flow.name}
        error: ParleyError | None = None
        try:
            with start_span("run", order.traceparent, attributes) as span:
                result = await self._execute()
                if result is not None and result.error is not None:
                    mark_error(span, result.error.code)
            if result is None:
                error = self._reason
        except ParleyError as caught:
            error = caught
        except asyncio.CancelledError:
            error = self._reason or HandedOver("the runner is shutting down")
        except Exception:  # noqa: BLE001 - a bug of ours: readers must not wait for ever
            structlog.get_logger("actors.flow_runner").exception("run_broke")
            error = InternalError("the run broke inside the runtime")
        finally:
            self.error = error
            if error is not None:
                self._parts.metrics.record_run_left(self._flow.name)
                structlog.get_logger("actors.flow_runner").warning("run_not_finished", error=error.code)
            self.log.end(error)

    def _end(self, stop: Stop, reason: ParleyError) -> None:
        if self._stop is None and self.task is not None and not self._closing:
            self._stop, self._reason = stop, reason
            if self._begun:
                # A task that is cancelled before its first step never takes it: nothing would be written.
                self.task.cancel()
        elif stop == "lost":
            # The writing of the end finds out by itself: its token is no longer the run's.
            self._stop, self._reason = stop, reason

    async def _execute(self) -> RunResult | None:
        """The committed result; None when the run was handed over."""
        self._began = time.monotonic()
        self._parts.metrics.record_run_started(self._flow.name, self._claimed.queued_s)
        events = ObservedEvents(
            self.log, self._parts.metrics, self._flow.name, self.order.run_id, current_traceparent()
        )
        data = {"flow": self._flow.name, "flow_version": self._flow.version, "attempt": self.order.attempt}
        self.log.add("run.started", None, data, self.order.attempt)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self.log.pump(), name="event-pump")
                result = await self._result(events)
                self._closing = True
                # The end is written even when somebody cancels meanwhile: it is decided.
                closing = group.create_task(self._close(pump, result), name="run-close")
                return await _uninterrupted(closing)
        except BaseExceptionGroup as errors:
            # The pump lost the run to another runner, or the end cannot be written.
            raise _first_known(errors) from errors

    async def _result(self, events: ObservedEvents) -> RunResult | None:
        """The flow's result; None when the run is to be handed over. Raises LeaseLost."""
        order = self.order
        saver = CheckpointSaver(self._parts.store, self.log, is_new=self._claimed.is_new)
        try:
            if self._stop is not None:
                return await self._stopped(events, saver)
            async with asyncio.timeout(order.deadline_s + DEADLINE_GRACE_S):
                return await execute_flow(
                    order,
                    self._flow,
                    self._parts.graphs,
                    self._ports(events),
                    saver,
                    self._claimed.decision,
                )
        except TimeoutError:
            late = BudgetError(f"the run took longer than {order.deadline_s:g} s", param="deadline_s")
            return await self._cut_off(late, events, saver)
        except asyncio.CancelledError:
            return await self._stopped(events, saver)
        except LeaseLost:
            raise
        except StoreError as error:
            # Not the run's fault: it goes on when the database does, here or elsewhere.
            self._reason = HandedOver(f"the database failed: {error.message}")
            return None
        except ParleyError as error:
            return await self._cut_off(error, events, saver)
        except Exception:  # noqa: BLE001 - a bug of ours ends this run, not its runner
            structlog.get_logger("actors.flow_runner").exception("flow_failed")
            broken = InternalError("the flow failed inside the runtime")
            return await self._cut_off(broken, events, saver)
        finally:
            events.close()

    async def _stopped(self, events: ObservedEvents, saver: CheckpointSaver) -> RunResult | None:
        if self._stop is None:
            # Not asked for by anybody here: the task group's, because the pump failed.
            raise asyncio.CancelledError
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if self._stop == "hand_over":
            return None
        if self._stop == "lost" or self._reason is None:
            raise self._reason or LeaseLost(f"run {self.order.run_id} was taken over")
        return await self._cut_off(self._reason, events, saver)

    def _ports(self, events: ObservedEvents) -> NodePorts:
        parts = self._parts
        # Patient outside: a call that waited for a full model looks at the lease again before it goes out.
        generator = PatientGenerator(HeldGenerator(parts.generator, self.log.check_held))
        return NodePorts(
            generator=generator,
            events=events,
            resources=parts.resources,
            history=StoredHistory(parts.store, self.order.tenant),
            placement=parts.placement(events, generator, self.log.check_held),
            clock=SystemClock(),
            stream_tokens=self._stream_tokens,
        )

    async def _cut_off(self, error: ParleyError, events: ObservedEvents, saver: CheckpointSaver) -> RunResult:
        nodes = (*await self._earlier(saver, events), *events.results)
        return RunResult(
            run_id=self.order.run_id,
            flow=self._flow.name,
            flow_version=self._flow.version,
            status="cancelled" if isinstance(error, CancelledRun) else "failed",
            nodes=nodes,
            usage=sum((node.usage for node in nodes), Usage()),
            timings=RunTimings(total_s=time.monotonic() - self._began),
            request_id=self.order.request_id,
            error=error_fact(error),
        )

    async def _earlier(self, saver: CheckpointSaver, events: ObservedEvents) -> list[NodeResult]:
        """Visits that were committed in earlier attempts; none when they cannot be read."""
        if self._claimed.is_new:
            return []
        here = {(node.id, node.visit) for node in events.results}
        try:
            saved = await saver.aget_tuple({"configurable": {"thread_id": self.order.run_id}})
            found = where_stopped(saved, self._flow).results if saved else ()
        except ParleyError as error:
            log = structlog.get_logger("actors.flow_runner")
            log.warning("earlier_nodes_not_read", error=error.message)
            return []
        return [node for node in found if (node.id, node.visit) not in here]

    async def _close(self, pump: asyncio.Task[None], result: RunResult | None) -> RunResult | None:
        log = structlog.get_logger("actors.flow_runner")
        if result is None:
            await self.log.release(pump)
            log.info("run_handed_over")
            return None
        queued_s = self._claimed.queued_s
        timings = result.timings.model_copy(update={"queued_s": queued_s})
        result = result.model_copy(update={"timings": timings})
        if result.status == "waiting" and result.waiting is not None:
            await self.log.wait(pump, result, result.waiting)
            self._parts.metrics.record_run_waits(self._flow.name)
            log.info("run_waits", node=result.waiting.node)
            return result
        result, artifact = await self._with_artifact(result)
        try:
            await self.log.finish(pump, result, lambda: self._publish(artifact))
        except BaseException:
            if artifact is not None:
                artifact.discard()
            raise
        self._parts.metrics.record_run_ended(result, queued_s + time.monotonic() - self._began)
        log.info("run_ended", **_facts(result))
        return result

    async def _with_artifact(self, result: RunResult) -> tuple[RunResult, PreparedArtifact | None]:
        try:
            artifact = await asyncio.to_thread(
                prepare_artifact, self._parts.outputs_root, result, self.order.request
            )
        except StoreError as error:
            structlog.get_logger("actors.flow_runner").error("artifact_not_written", error=error.message)
            return result.model_copy(update={"notices": (*result.notices, error.message)}), None
        return result.model_copy(update={"artifact": str(artifact.path)}), artifact

    def _publish(self, artifact: PreparedArtifact | None) -> None:
        try:
            if artifact is not None:
                artifact.publish()
        except OSError as error:
            # The end is committed; the file is a copy for people.
            structlog.get_logger("actors.flow_runner").error("artifact_not_written", error=str(error))


def _facts(result: RunResult) -> dict[str, Any]:
    return {
        "workflow_type": result.flow,
        "status": result.status,
        "duration": round(result.timings.total_s, 6),
        "rounds": result.rounds,
        "nodes": len(result.nodes),
        "prompt_tokens": result.usage.prompt_tokens,
        "completion_tokens": result.usage.completion_tokens,
        "cost_usd": result.usage.cost,
        "error": result.error.code if result.error else None,
    }


def _first_known(errors: BaseExceptionGroup[BaseException]) -> ParleyError:
    known, _ = errors.split(ParleyError)
    while known is not None:
        first = known.exceptions[0]
        if isinstance(first, ParleyError):
            return first
        known = first if isinstance(first, BaseExceptionGroup) else None
    structlog.get_logger("actors.flow_runner").error("run_broke", exc_info=errors)
    return InternalError("the run broke inside the runtime")


async def _uninterrupted(task: asyncio.Task[RunResult | None]) -> RunResult | None:
    """Await it to its end; a cancellation that arrives meanwhile comes too late and is dropped."""
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
