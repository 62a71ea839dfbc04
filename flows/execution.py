"""Runs a flow: the order goes in, events come out on the way, a RunResult at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from flows.admission import Admitted, admit
from flows.builder import CompiledFlow, FlowGraphs
from flows.improvement import Measured, measure_improvement
from flows.node_context import NodePorts
from flows.nodes.run_payload import error_fact
from flows.run_context import RunContext
from flows.scope_notice import fallback_notice
from flows.variables import answer_of
from flows.visit import NodeFailed
from registries.contracts.errors import BudgetError, InternalError, ParleyError
from registries.contracts.generation import Usage
from registries.contracts.runs import ErrorFact, Improvement, RunOrder, RunResult, RunTimings
from registries.specs import FlowSpec

_log = logging.getLogger(__name__)
_STEPS_BESIDE_NODES = 10


async def execute_flow(
    order: RunOrder,
    flow: FlowSpec,
    graphs: FlowGraphs,
    ports: NodePorts,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> RunResult:
    """Run the flow to its end; ``order.deadline_s`` counts from this call.

    Emits node.* and round.* events through ``ports.events``; run.* events are the caller's. A run that fails
    (bad input, a node the flow cannot do without, the deadline) is a RunResult with status "failed" and all
    nodes that ended before. Cancelling cancels every node; CancelledError is all that is raised.
    """
    started = ports.clock.monotonic()
    try:
        admitted = admit(order, flow, graphs.catalog)
        plan, graph = graphs.plan(flow), graphs.compiled(flow)
    except ParleyError as error:
        return _refused(order, flow, error)
    run = RunContext(order, flow, plan, graphs.catalog, ports, admitted.models, started)
    failure = await _drive(graph, run, admitted, checkpointer)
    if failure is not None:
        return _result(run, admitted, failure)
    measured = await measure_improvement(run, admitted.question, _answer(run))
    return _result(run, admitted, None, measured)


async def _drive(
    graph: CompiledFlow, run: RunContext, admitted: Admitted, checkpointer: BaseCheckpointSaver[Any] | None
) -> ErrorFact | None:
    """Run the graph; the error that ended it, or None."""
    try:
        async with asyncio.timeout(run.order.deadline_s) as limit:
            await _invoke(graph, run, admitted, checkpointer)
    except NodeFailed as failure:
        return failure.result.error
    except TimeoutError as error:
        if not limit.expired():
            return _internal(run, error)
        return error_fact(
            BudgetError(f"the run's deadline of {run.order.deadline_s:g} s passed", "deadline_s")
        )
    except ParleyError as error:
        return error_fact(error)
    except Exception as error:  # noqa: BLE001 — LangGraph's own, or a bug: the run fails, the process goes on
        return _internal(run, error)
    return None


async def _invoke(
    graph: CompiledFlow, run: RunContext, admitted: Admitted, checkpointer: BaseCheckpointSaver[Any] | None
) -> None:
    visits = sum(max(20, plan.rounds) for plan in run.plan.loops.values()) + len(run.flow.nodes)
    config: RunnableConfig = {
        "recursion_limit": visits + _STEPS_BESIDE_NODES,
        "configurable": {"thread_id": run.order.run_id},
    }
    if checkpointer is None:
        await graph.ainvoke(admitted.state, config, context=run)
    else:
        kept = graph.copy({"checkpointer": checkpointer})
        await kept.ainvoke(admitted.state, config, context=run, durability="sync")


def _result(
    run: RunContext, admitted: Admitted, error: ErrorFact | None, measured: Measured | None = None
) -> RunResult:
    measured = measured or Measured(Improvement(reason="the run did not complete"))
    usage = sum((result.usage for result in run.results), measured.usage)
    return RunResult(
        run_id=run.order.run_id,
        flow=run.flow.name,
        flow_version=run.flow.version,
        status="failed" if error else "completed",
        answer=_answer(run),
        nodes=tuple(run.results),
        usage=usage,
        timings=RunTimings(total_s=run.elapsed_s()),
        improvement=measured.improvement,
        rounds=_rounds(run),
        request_id=run.order.request_id,
        error=error,
        notices=_notices(run, admitted),
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


def _internal(run: RunContext, error: Exception) -> ErrorFact:
    _log.error("run %s of flow %s failed inside the runtime", run.order.run_id, run.flow.name, exc_info=error)
    return error_fact(InternalError("the run failed inside the runtime; its log has the cause"))
