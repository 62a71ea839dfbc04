"""One run from claim to committed result, whatever happens on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from actors.outputs import write_artifact
from actors.running.observed_events import ObservedEvents
from actors.running.ports import GpuResources, StoredHistory, SystemClock
from actors.running.run_log import RunLog
from actors.stores.store import Store
from actors.telemetry.metrics import Metrics
from actors.telemetry.tracing import current_traceparent, mark_error, start_span
from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.node_context import NodePorts
from flows.nodes.run_payload import error_fact
from flows.ports import EventSink, Generator, Placement
from registries.contracts.errors import (
    BudgetError,
    CancelledRun,
    Conflict,
    InternalError,
    ParleyError,
    StoreError,
)
from registries.contracts.generation import Usage
from registries.contracts.runs import RunOrder, RunResult, RunTimings
from registries.specs import FlowSpec

DEADLINE_GRACE_S = 2.0
"""The flow ends itself at its deadline; this long after it, the runner does."""


@dataclass(frozen=True, slots=True)
class RunParts:
    """What every run of a runner shares. ``placement`` makes the port for one run's sink."""

    generator: Generator
    store: Store
    graphs: FlowGraphs
    metrics: Metrics
    placement: Callable[[EventSink], Placement]
    resources: GpuResources
    outputs_root: Path
    linger_s: Callable[[], float]


class RunExecution:
    """Owns one run. ``work`` is its task; ``cancel`` ends it with a reason; readers come from ``log``."""

    def __init__(self, order: RunOrder, flow: FlowSpec, parts: RunParts) -> None:
        self.order = order
        self.log = RunLog(order.run_id, parts.store, parts.metrics, linger_s=parts.linger_s)
        self.task: asyncio.Task[None] | None = None
        self._flow = flow
        self._parts = parts
        self._arrived = time.monotonic()
        self._began = self._arrived
        self._stop_reason: ParleyError | None = None

    def cancel(self, reason: ParleyError) -> None:
        """End the run with this error: CancelledRun makes it cancelled, any other failed."""
        if self._stop_reason is None and self.task is not None:
            self._stop_reason = reason
            self.task.cancel()

    async def work(self) -> None:
        """Claim, execute, commit; every end is told to the readers, an early error is raised there."""
        order = self.order
        structlog.contextvars.bind_contextvars(request_id=order.request_id, run_id=order.run_id)
        attributes = {"workflow.id": order.run_id, "workflow.type": self._flow.name}
        error: ParleyError | None = None
        try:
            with start_span("run", order.traceparent, attributes) as span:
                await self._claim()
                result = await self._execute()
                if result.error is not None:
                    mark_error(span, result.error.code)
        except ParleyError as caught:
            error = caught
        except asyncio.CancelledError:
            error = self._stop_reason or CancelledRun("the runner is shutting down")
        except Exception:  # noqa: BLE001 - a bug of ours: readers must not wait for ever
            structlog.get_logger("actors.flow_runner").exception("run_broke")
            error = InternalError("the run broke inside the runtime")
        finally:
            if error is not None:
                self._parts.metrics.record_error(error.code)
                structlog.get_logger("actors.flow_runner").warning("run_not_finished", error=error.code)
            self.log.end(error)

    async def _claim(self) -> None:
        last_seq = await self._parts.store.claim(self.order, self._flow.version)
        if last_seq is None:
            raise Conflict(f"run {self.order.run_id} is taken already, or has ended", param="run_id")
        self.log.seq = last_seq

    async def _execute(self) -> RunResult:
        self._began = time.monotonic()
        self._parts.metrics.record_run_started(self._flow.name, self._began - self._arrived)
        events = ObservedEvents(
            self.log, self._parts.metrics, self._flow.name, self.order.run_id, current_traceparent()
        )
        data = {"flow": self._flow.name, "flow_version": self._flow.version, "attempt": self.order.attempt}
        self.log.add("run.started", None, data)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self.log.pump(), name="event-pump")
                result = await self._result(events)
                # The end is written even when somebody cancels meanwhile: it is decided.
                closing = group.create_task(self._close(pump, result), name="run-close")
                return await _uninterrupted(closing)
        except BaseExceptionGroup as errors:
            # The pump lost the run to another runner, or the end cannot be written.
            raise _first_known(errors) from errors

    async def _result(self, events: ObservedEvents) -> RunResult:
        try:
            async with asyncio.timeout(self.order.deadline_s + DEADLINE_GRACE_S):
                return await execute_flow(self.order, self._flow, self._parts.graphs, self._ports(events))
        except TimeoutError:
            late = BudgetError(f"the run took longer than {self.order.deadline_s:g} s", param="deadline_s")
            return self._cut_off(late, events)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return self._cut_off(self._stop_reason or CancelledRun("the runner is shutting down"), events)
        except ParleyError as error:
            return self._cut_off(error, events)
        except Exception:  # noqa: BLE001 - a bug of ours ends this run, not its runner
            structlog.get_logger("actors.flow_runner").exception("flow_failed")
            return self._cut_off(InternalError("the flow failed inside the runtime"), events)
        finally:
            events.close()

    def _ports(self, events: ObservedEvents) -> NodePorts:
        parts = self._parts
        return NodePorts(
            generator=parts.generator,
            events=events,
            resources=parts.resources,
            history=StoredHistory(parts.store, self.order.tenant),
            placement=parts.placement(events),
            clock=SystemClock(),
        )

    def _cut_off(self, error: ParleyError, events: ObservedEvents) -> RunResult:
        return RunResult(
            run_id=self.order.run_id,
            flow=self._flow.name,
            flow_version=self._flow.version,
            status="cancelled" if isinstance(error, CancelledRun) else "failed",
            nodes=tuple(events.results),
            usage=sum((node.usage for node in events.results), Usage()),
            timings=RunTimings(total_s=time.monotonic() - self._began),
            request_id=self.order.request_id,
            error=error_fact(error),
        )

    async def _close(self, pump: asyncio.Task[None], result: RunResult) -> RunResult:
        result = await self._with_artifact(result)
        first = await self.log.finish(pump, result)
        self._parts.metrics.record_run_ended(result, time.monotonic() - self._arrived)
        if not first:
            raise Conflict(f"run {self.order.run_id} was ended by somebody else", param="run_id")
        structlog.get_logger("actors.flow_runner").info("run_ended", **_facts(result))
        return result

    async def _with_artifact(self, result: RunResult) -> RunResult:
        result = result.model_copy(
            update={"timings": result.timings.model_copy(update={"queued_s": self._began - self._arrived})}
        )
        try:
            path = await asyncio.to_thread(
                write_artifact, self._parts.outputs_root, result, self.order.request
            )
        except StoreError as error:
            structlog.get_logger("actors.flow_runner").error("artifact_not_written", error=error.message)
            return result.model_copy(update={"notices": (*result.notices, error.message)})
        return result.model_copy(update={"artifact": str(path)})


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


async def _uninterrupted(task: asyncio.Task[RunResult]) -> RunResult:
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
