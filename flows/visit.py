"""One visit of a node inside a run: events, placement, retries, and what the state keeps of it."""

from __future__ import annotations

from typing import Any

import structlog

from flows.nodes.approve import APPROVED, REJECTED
from flows.nodes.run_payload import NOT_THE_NODES, Visit, error_fact, run_visit
from flows.run_context import RunContext
from flows.state import MEMORY_KEYS, AgentState, ErrorContext, visits_of
from registries.contracts.errors import BudgetError, CancelledRun, InternalError, ParleyError
from registries.contracts.runs import EventType, NodeResult, NodeTimings
from registries.specs import NodeSpec

_EVENTS: dict[str, EventType] = {
    "completed": "node.completed",
    "failed": "node.failed",
    "skipped": "node.skipped",
}


class NodeFailed(Exception):
    """A node failed that the flow cannot do without; ends the graph and never leaves flows."""

    def __init__(self, result: NodeResult) -> None:
        super().__init__(result.id)
        self.result = result


async def visit_node(state: AgentState, run: RunContext, node: NodeSpec) -> dict[str, Any]:
    """Run the node once and return the state's update; raises NodeFailed where on_error is "fail".

    Raises NOT_THE_NODES too. The numbers of its attempts go on where an earlier attempt of the run could
    have left off: readers tell repeated tokens apart by them.
    """
    _check_budget(run)
    visit = visits_of(state, node.id) + 1
    before = (run.order.attempt - 1) * (1 + (node.retry.max_retries if node.retry else 0))
    if run.plan.starts_round(node.id):
        await run.ports.events.emit("round.started", node.id, {"round": visit}, before + 1)
    begun_s = run.elapsed_s()
    attempt, done = 1, await _attempt(state, run, node, visit, before + 1)
    while _again(done.result, node, attempt):
        await _pause(run, node, attempt)
        attempt += 1
        done = await _attempt(state, run, node, visit, before + attempt)
    done = _heeded(state, run, node, visit, done)
    timings = NodeTimings(started_s=begun_s, duration_s=run.elapsed_s() - begun_s)
    result = done.result.model_copy(update={"timings": timings})
    run.results.append(result)
    # Once for the event and for the state: neither is changed by whoever reads it.
    shown = result.model_dump(mode="json")
    await run.ports.events.emit(_EVENTS[result.status], node.id, shown, before + attempt)
    _log_visit(run, result)
    if result.status == "failed" and node.on_error == "fail":
        raise NodeFailed(result)
    return state_update(state, run, result, shown, done, attempt)


def _check_budget(run: RunContext) -> None:
    """A node starts only while the run's money lasts; what runs already may overshoot by one call each."""
    budget_usd = run.order.request.budget_usd
    spent_usd = sum(result.usage.cost_micro_usd for result in run.results) / 1_000_000
    if budget_usd is not None and spent_usd > budget_usd:
        message = f"the run has cost {spent_usd:.6f} US dollars, more than its budget_usd of {budget_usd:g}"
        raise BudgetError(message, "budget_usd")


async def _attempt(state: AgentState, run: RunContext, node: NodeSpec, visit: int, attempt: int) -> Visit:
    started = {"role": node.role or node.id, "kind": node.kind, "visit": visit, "model": run.models[node.id]}
    await run.ports.events.emit("node.started", node.id, started, attempt)
    try:
        task = run.task(state, node, visit, attempt)
    except ParleyError as error:
        return Visit(_failed(node, visit, error), type(error).__name__)
    if node.placement == "inline":
        return await run_visit(task, run.ports, run.catalog)
    try:
        return Visit(await run.ports.placement.run_node(task.model_dump(mode="json")))
    except NOT_THE_NODES:
        raise
    except ParleyError as error:
        return Visit(_failed(node, visit, error), type(error).__name__)
    except Exception as error:  # a lost worker must not take the siblings with it
        log = structlog.get_logger(__name__)
        log.error("node_not_placed", node_name=node.id, workflow_id=run.order.run_id, exc_info=error)
        lost = InternalError(f"node {node.id!r} could not be run elsewhere")
        return Visit(_failed(node, visit, lost), type(error).__name__)


def _failed(node: NodeSpec, visit: int, error: ParleyError) -> NodeResult:
    return NodeResult(
        id=node.id,
        role=node.role or node.id,
        kind=node.kind,
        visit=visit,
        status="failed",
        error=error_fact(error),
    )


def _heeded(state: AgentState, run: RunContext, node: NodeSpec, visit: int, done: Visit) -> Visit:
    """The visit; failed where a human said no and the flow would go on as if it had been a yes."""
    data = done.result.data
    if node.kind != "approve" or REJECTED not in data.get("signals", ()):
        return done
    yes, no = ({**state["signals"], node.id: [signal]} for signal in (APPROVED, REJECTED))
    if run.plan.heeds(node.id, no, yes, visit, state["input"].get("rounds")):
        return done
    said = f": {data['comment']}" if data["comment"] else ""
    error = CancelledRun(f"rejected at node {node.id!r}{said}", f"nodes.{node.id}")
    failure = {"status": "failed", "error": error_fact(error)}
    return Visit(done.result.model_copy(update=failure), type(error).__name__)


def _again(result: NodeResult, node: NodeSpec, attempt: int) -> bool:
    """Only a node that declares a policy is tried again here: calls are retried by the gateway already."""
    if node.retry is None or result.error is None or not result.error.retryable:
        return False
    return attempt <= node.retry.max_retries


async def _pause(run: RunContext, node: NodeSpec, attempt: int) -> None:
    if node.retry is not None:
        await run.ports.clock.sleep(min(node.retry.backoff_factor**attempt, node.retry.max_backoff_s))


def state_update(
    state: AgentState,
    run: RunContext,
    result: NodeResult,
    shown: dict[str, Any],
    done: Visit,
    attempt: int = 1,
) -> dict[str, Any]:
    """What the state keeps of a visit; ``shown`` is its result as JSON."""
    update: dict[str, Any] = {
        "results": [shown],
        "signals": {result.id: list(result.data.get("signals", ()))},
        "metrics": {result.id: figures_after(state["metrics"].get(result.id), result)},
        "memory": {key: result.data[key] for key in MEMORY_KEYS if key in result.data},
    }
    if result.status == "completed":
        update["outputs"] = {result.id: result.text}
    if "score" in result.data:
        update["scores"] = {result.id: float(result.data["score"])}
    if "history" in result.data:
        update["messages"] = list(result.data["history"])
    if result.error is not None:
        update["error_history"] = [_error_context(run, result, done, attempt)]
        update["recovery_strategy"] = "continue"
    return update


def figures_after(before: dict[str, Any] | None, result: NodeResult) -> dict[str, Any]:
    """The node's figures with this visit added."""
    old = before or {}
    return {
        "visits": old.get("visits", 0) + 1,
        "failed": old.get("failed", 0) + (result.status == "failed"),
        "prompt_tokens": old.get("prompt_tokens", 0) + result.usage.prompt_tokens,
        "completion_tokens": old.get("completion_tokens", 0) + result.usage.completion_tokens,
        "cost_micro_usd": old.get("cost_micro_usd", 0) + result.usage.cost_micro_usd,
        "duration_s": old.get("duration_s", 0.0) + result.timings.duration_s,
        "model": result.model_resolved or old.get("model"),
    }


def _error_context(run: RunContext, result: NodeResult, done: Visit, attempt: int) -> ErrorContext:
    return ErrorContext(
        timestamp=run.ports.clock.time(),
        error_type=done.error_type or "ParleyError",
        error_message=result.error.message if result.error else "",
        node_name=result.id,
        retry_count=attempt - 1,
        stack_trace=done.stack_trace,
    )


def _log_visit(run: RunContext, result: NodeResult) -> None:
    facts = {
        "node_name": result.id,
        "workflow_id": run.order.run_id,
        "request_id": run.order.request_id,
        "status": result.status,
        "duration": round(result.timings.duration_s, 6),
        "input_size": result.usage.prompt_tokens,
        "output_size": result.usage.completion_tokens,
    }
    structlog.get_logger(__name__).info("workflow_node_executed", **facts)
