"""Runs a flow, or goes on with it: the order goes in, events come out, a RunResult at the end."""

from __future__ import annotations

import asyncio
import copy
import logging
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from flows.admission import Admitted, admit, readmit
from flows.builder import CompiledFlow, FlowGraphs
from flows.improvement import Measured, measure_improvement
from flows.node_context import NodePorts
from flows.nodes.run_payload import NOT_THE_NODES, error_fact
from flows.resumption import waiting_for, where_stopped
from flows.run_context import RunContext
from flows.run_thread import RunThread
from flows.scope_notice import fallback_notice
from flows.variables import answer_of
from flows.visit import NodeFailed
from registries.contracts.errors import BudgetError, CancelledRun, InternalError, ParleyError, ValidationError
from registries.contracts.generation import Usage
from registries.contracts.runs import (
    Decision,
    ErrorFact,
    Improvement,
    RunOrder,
    RunResult,
    RunStatus,
    RunTimings,
    Waiting,
)
from registries.specs import FlowSpec

_log = logging.getLogger(__name__)
_STEPS_BESIDE_NODES = 10
_LEAST = "version"
"""A channel that no node writes."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why a graph stopped: neither an error nor a question means that it ran to its end."""

    error: ErrorFact | None = None
    waiting: Waiting | None = None

    @property
    def status(self) -> RunStatus:
        if self.error is not None:
            return "cancelled" if self.error.code == CancelledRun.code else "failed"
        return "completed" if self.waiting is None else "waiting"


async def execute_flow(
    order: RunOrder,
    flow: FlowSpec,
    graphs: FlowGraphs,
    ports: NodePorts,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    decision: Decision | None = None,
) -> RunResult:
    """Run the flow until it ends or waits; ``order.deadline_s`` counts from this call.

    With a checkpointer that has a checkpoint of the run (thread ``order.run_id``) it goes on there: what is
    committed never runs again, a node cut off runs again with the same call_id, ``decision`` answers the
    question that it was given for, and the result has the nodes of all attempts. ``timings.total_s`` is of
    this one.

    Emits node.* and round.* events through ``ports.events``; run.* events are the caller's. A run that fails
    (bad input, a node the flow cannot do without, the deadline) is a RunResult with status "failed" and all
    nodes that ended before; one that a human ended has "cancelled". Raised are LeaseLost and StoreError,
    whatever else the checkpointer raises, and CancelledError: cancelling cancels every node.
    """
    started = ports.clock.monotonic()
    thread = None if checkpointer is None else await RunThread.open(checkpointer, order.run_id)
    try:
        stopped = where_stopped(thread.saved, flow) if thread is not None and thread.saved else None
        if stopped is None:
            admitted = _admitted(order, flow, graphs, thread)
            plan, graph = graphs.plan(flow), graphs.compiled(flow)
        else:
            admitted = readmit(order, flow, stopped.state, graphs.catalog)
            plan, graph = graphs.begun(flow)
    except ParleyError as error:
        return _refused(order, flow, error)
    done = [] if stopped is None else list(stopped.results)
    run = RunContext(
        order, flow, plan, graphs.catalog, ports, admitted.models, started, done, admitted.missing
    )
    graph_input = admitted.state if stopped is None else stopped.graph_input(decision)
    ending = await _drive(graph, graph_input, run, thread)
    if ending.status != "completed":
        return _result(run, admitted, ending)
    measured = await measure_improvement(run, admitted.question, _answer(run))
    return _result(run, admitted, ending, measured)


def _admitted(order: RunOrder, flow: FlowSpec, graphs: FlowGraphs, thread: RunThread | None) -> Admitted:
    if thread is None and any(node.kind == "approve" for node in flow.nodes):
        message = f"flow {flow.name!r} waits for a human; it needs a store to keep its state in meanwhile"
        raise ValidationError(message, "flow_type")
    return admit(order, flow, graphs.catalog)


async def _drive(graph: CompiledFlow, graph_input: Any, run: RunContext, thread: RunThread | None) -> _Ending:
    """Run the graph and say how it ended; what the checkpointer raised comes before anything else."""
    try:
        ending = await _ended(graph, graph_input, run, thread)
    except Exception as error:
        if thread is not None and thread.error is not None:
            raise thread.error from error
        raise
    if thread is not None and thread.error is not None:
        raise thread.error
    return ending


async def _ended(graph: CompiledFlow, graph_input: Any, run: RunContext, thread: RunThread | None) -> _Ending:
    try:
        async with asyncio.timeout(run.order.deadline_s) as limit:
            return _Ending(waiting=await _invoke(graph, graph_input, run, thread))
    except NOT_THE_NODES:
        raise
    except NodeFailed as failure:
        return _Ending(failure.result.error)
    except TimeoutError as error:
        if not limit.expired():
            return _internal(run, error)
        asked_s = run.order.request.deadline_s or run.order.deadline_s
        late = BudgetError(f"the run's deadline of {asked_s:g} s passed", "deadline_s")
        return _Ending(error_fact(late))
    except ParleyError as error:
        return _Ending(error_fact(error))
    except Exception as error:  # noqa: BLE001 — LangGraph's own, or a bug: the run fails, the process goes on
        return _internal(run, error)


async def _invoke(
    graph: CompiledFlow, graph_input: Any, run: RunContext, thread: RunThread | None
) -> Waiting | None:
    visits = sum(max(20, plan.rounds) for plan in run.plan.loops.values()) + len(run.flow.nodes)
    config: RunnableConfig = {
        "recursion_limit": visits + _STEPS_BESIDE_NODES,
        "configurable": {"thread_id": run.order.run_id},
    }
    # Its questions are all that is wanted of the graph's output: the state of every step would be put
    # together for nobody.
    if thread is None:
        await graph.ainvoke(graph_input, config, context=run, stream_mode="updates", output_keys=_LEAST)
        return None
    # Not its own copy(), which validates the whole graph once more.
    kept = copy.copy(graph)
    kept.checkpointer = thread
    updates = await kept.ainvoke(
        graph_input, config, context=run, durability="sync", stream_mode="updates", output_keys=_LEAST
    )
    return waiting_for(cast("list[dict[str, Any]]", updates))


def _result(
    run: RunContext, admitted: Admitted, ending: _Ending, measured: Measured | None = None
) -> RunResult:
    why = "the run waits for a decision" if ending.waiting else "the run did not complete"
    measured = measured or Measured(Improvement(reason=why))
    usage = sum((result.usage for result in run.results), measured.usage)
    return RunResult(
        run_id=run.order.run_id,
        flow=run.flow.name,
        flow_version=run.flow.version,
        status=ending.status,
        answer=_answer(run),
        nodes=tuple(run.results),
        usage=usage,
        timings=RunTimings(total_s=run.elapsed_s()),
        improvement=measured.improvement,
        rounds=_rounds(run),
        request_id=run.order.request_id,
        error=ending.error,
        notices=_notices(run, admitted),
        waiting=ending.waiting,
    )


def _answer(run: RunContext) -> str:
    texts = {result.id: result.text for result in run.results if result.status == "completed"}
    return answer_of(texts, run.flow)


def _rounds(run: RunContext) -> int:
    """Rounds of the loop that went round most; 0 for a flow without loops."""
    return max((result.visit for result in run.results if run.plan.starts_round(result.id)), default=0)


def _notices(run: RunContext, admitted: Admitted) -> tuple[str, ...]:
    found = [admitted.notice(run.catalog)]
    for result in run.results:
        wanted, answered = admitted.models.get(result.id), result.model_resolved
        if wanted and answered and answered in run.catalog.models:
            spec = run.catalog.get_model(answered)
            found.append(fallback_notice(admitted.question, result.id, wanted, spec))
    return tuple(dict.fromkeys(notice for notice in found if notice))


def _refused(order: RunOrder, flow: FlowSpec, error: ParleyError) -> RunResult:
    return RunResult(
        run_id=order.run_id,
        flow=flow.name,
        flow_version=flow.version,
        status="failed",
        usage=Usage(),
        improvement=Improvement(reason="the run did not start"),
        request_id=order.request_id,
        error=error_fact(error),
    )


def _internal(run: RunContext, error: Exception) -> _Ending:
    _log.error("run %s of flow %s failed inside the runtime", run.order.run_id, run.flow.name, exc_info=error)
    return _Ending(error_fact(InternalError("the run failed inside the runtime; its log has the cause")))
