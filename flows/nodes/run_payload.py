"""Runs one visit of one node, in this process; every failure becomes a failed NodeResult."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
from langgraph.errors import GraphBubbleUp

from flows.node_context import NodeContext, NodeOutcome, NodePorts
from flows.node_task import NodeTask
from flows.nodes.table import NODE_KINDS
from registries.catalog import Catalog
from registries.contracts.errors import (
    BudgetError,
    InternalError,
    LeaseLost,
    ParleyError,
    ProviderError,
    StoreError,
    ValidationError,
)
from registries.contracts.generation import Attempt
from registries.contracts.runs import ErrorFact, NodeResult, NodeTimings

NOT_THE_NODES = (LeaseLost, StoreError, GraphBubbleUp)
"""Ends of the attempt, not of the node: the run is another's, cannot be written, or waits for a human."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit's result, with what only operators may see of its failure."""

    result: NodeResult
    error_type: str = ""
    stack_trace: str = ""


async def run_payload(payload: Mapping[str, Any], ports: NodePorts, catalog: Catalog) -> NodeResult:
    """Run the node that ``payload`` (a NodeTask as JSON) describes; used by the task of an expert.

    Emits ``node.token`` only: started and completed are told by whoever holds the run. Raises nothing but
    CancelledError, NOT_THE_NODES, and ValidationError for a payload that is none.
    """
    try:
        task = NodeTask.model_validate(payload)
    except pydantic.ValidationError as error:
        raise ValidationError(
            f"the payload is no node task: {error.error_count()} fields are wrong"
        ) from error
    return (await run_visit(task, ports, catalog)).result


async def run_visit(task: NodeTask, ports: NodePorts, catalog: Catalog) -> Visit:
    """Run the task; cancelling it aborts its model call. Raises NOT_THE_NODES and nothing else."""
    started = ports.clock.monotonic()
    context = NodeContext(task, ports, catalog, started)
    try:
        outcome = await _within_limit(context)
    except NOT_THE_NODES:
        raise
    except ParleyError as error:
        return _failed(context, error, error)
    except Exception as error:  # noqa: BLE001 — a bug of ours or of a custom kind: it must fail this node, not the process
        _log.exception("node %s of run %s failed", task.node.id, task.run_id)
        return _failed(context, InternalError(f"node {task.node.id!r} failed inside the runtime"), error)
    return Visit(_completed(context, outcome))


async def _within_limit(context: NodeContext) -> NodeOutcome:
    task = context.task
    kind = NODE_KINDS.get(task.node.kind)
    if kind is None:
        known = ", ".join(sorted(NODE_KINDS))
        raise ValidationError(
            f"unknown node kind {task.node.kind!r}. Known: {known}", f"nodes.{task.node.id}.kind"
        )
    try:
        async with asyncio.timeout(task.node.timeout_s) as limit:
            return await kind.run(context)
    except TimeoutError as error:
        if not limit.expired():
            raise
        message = f"node {task.node.id!r} took longer than its timeout_s of {task.node.timeout_s:g}"
        raise BudgetError(message, f"nodes.{task.node.id}.timeout_s") from error


def _completed(context: NodeContext, outcome: NodeOutcome) -> NodeResult:
    made = outcome.generation
    base = _base(context).model_copy(
        update={
            "status": "skipped" if outcome.skipped else "completed",
            "text": outcome.text,
            "data": dict(outcome.data),
        }
    )
    if made is None:
        return base
    return base.model_copy(
        update={
            "model_resolved": made.model_resolved,
            "source": made.source,
            "usage": made.usage,
            "cache_hit": made.cache_hit,
            "attempts": made.attempts,
            "breaker": made.breaker,
        }
    )


def _failed(context: NodeContext, error: ParleyError, cause: Exception) -> Visit:
    tries = tuple(Attempt.model_validate(fact) for fact in error.context.get("attempts", ()))
    failure = {"status": "failed", "error": error_fact(error), "attempts": tries}
    result = _base(context).model_copy(update=failure)
    trace = "".join(traceback.format_exception(cause))
    return Visit(result, type(cause).__name__, trace)


def _base(context: NodeContext) -> NodeResult:
    node = context.task.node
    duration_s = context.ports.clock.monotonic() - context.started
    return NodeResult(
        id=node.id,
        role=node.role or node.id,
        kind=node.kind,
        visit=context.task.visit,
        status="completed",
        timings=NodeTimings(duration_s=duration_s),
    )


def error_fact(error: ParleyError) -> ErrorFact:
    """The error as users may see it."""
    return ErrorFact(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        fault=str(error.fault) if isinstance(error, ProviderError) else None,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )
