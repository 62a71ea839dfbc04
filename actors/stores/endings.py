"""Ends that the store itself writes, for runs that nobody holds: cancelled, parked, too late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from actors.stores.database import Transaction
from actors.stores.event_rows import add_event
from actors.stores.json_text import load_json
from actors.stores.told_nodes import told_nodes
from registries.contracts.generation import Usage
from registries.contracts.runs import (
    END_EVENTS,
    INHERITED,
    NODE_ENDS,
    ErrorFact,
    NodeResult,
    RunResult,
    RunStatus,
)

JUDGE_NODE = "(judge)"
"""No flow can have a node of this name."""
CANCELLED = ErrorFact(code="cancelled", message="the run was cancelled")
TOO_LATE = ErrorFact(
    code="budget_exceeded", message="the run's deadline passed while it waited to be run", param="deadline_s"
)

_FACTS = "SELECT flow, flow_version, request_id, attempts, last_seq FROM runs WHERE run_id = ? {for_update}"
# The token rises, so that a holder who comes back late never takes this end for its own.
_END = (
    "UPDATE runs SET status = ?, result = ?, answer = ?, error_code = ?, deaths = deaths + ?, waiting = NULL,"
    " lease_owner = NULL, lease_token = lease_token + 1, finished_at = {now}, last_seq = ? WHERE run_id = ?"
)
_NODE_EVENTS = (
    "SELECT type, node, data FROM events WHERE run_id = ? AND type IN"
    " ('node.started', 'node.completed', 'node.failed', 'node.skipped') ORDER BY seq"
)
_KEEP_USAGE = (
    "INSERT INTO usage (run_id, node, visit, status, model, provider, prompt_tokens, completion_tokens,"
    " cost_micro_usd, duration_s, cache_hit, error_code) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (run_id, node, visit) DO UPDATE SET status = excluded.status, model = excluded.model,"
    " provider = excluded.provider, prompt_tokens = excluded.prompt_tokens,"
    " completion_tokens = excluded.completion_tokens, cost_micro_usd = excluded.cost_micro_usd,"
    " duration_s = excluded.duration_s, cache_hit = excluded.cache_hit, error_code = excluded.error_code"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run's events tell: the nodes that ended, and the one that began last and did not."""

    nodes: tuple[NodeResult, ...] = ()
    under_way: str | None = None


def end_run(
    tx: Transaction, run_id: str, status: RunStatus, error: ErrorFact, progress: Progress | None = None
) -> RunResult:
    """End a run that this transaction may change: result, usage and event, by what was committed of it."""
    flow, version, request_id, attempts, last_seq = tx.execute(_FACTS, (run_id,)).fetchone()
    progress = progress or read_progress(tx, run_id, last_seq)
    result = RunResult(
        run_id=run_id,
        flow=flow,
        flow_version=version,
        status=status,
        nodes=progress.nodes,
        usage=sum((node.usage for node in progress.nodes), Usage()),
        request_id=request_id,
        error=error,
    )
    deaths = int(error.code == "runner_died")
    row = (status, result.model_dump_json(), result.answer, error.code, deaths, last_seq + 1, run_id)
    tx.execute(_END, row)
    data = {"result": result.model_dump(mode="json")}
    add_event(tx, run_id, last_seq + 1, END_EVENTS[status], attempts, data)
    insert_usage(tx, usage_rows(result))
    return result


def park(tx: Transaction, run_id: str, deaths: int, last_seq: int) -> RunResult:
    """Fail a run that has ended ``deaths`` of its runners, and say where."""
    progress = read_progress(tx, run_id, last_seq)
    where = f"node {progress.under_way!r} was under way" if progress.under_way else "no node was under way"
    times = "once" if deaths == 1 else f"{deaths} times"
    error = ErrorFact(
        code="runner_died",
        message=f"the process that ran it died {times}, {where}; restart it when the cause is gone",
        param=f"nodes.{progress.under_way}" if progress.under_way else None,
    )
    return end_run(tx, run_id, "failed", error, progress)


def read_progress(tx: Transaction, run_id: str, last_seq: int) -> Progress:
    """By the committed events; a visit that was repeated counts with its last end."""
    if last_seq <= 1:
        return Progress()
    open_nodes: dict[str, None] = {}
    rows = tx.execute(_NODE_EVENTS, (run_id,)).fetchall()
    for type, node, _ in rows:
        open_nodes.pop(node, None)
        if type == "node.started":
            open_nodes[node] = None
    try:
        nodes = told_nodes(load_json(data) for type, _, data in rows if type in NODE_ENDS)
    except ValueError:
        # Told by another version of this program, or damaged: the run must be able to end all the same.
        structlog.get_logger("actors.stores").warning("told_nodes_not_read", run_id=run_id)
        nodes = ()
    return Progress(nodes, next(reversed(open_nodes), None))


def usage_rows(result: RunResult) -> list[tuple[Any, ...]]:
    """A row for each visit of a node, for the statistics, and one for what judging the answer cost.

    None for nodes that a fork took over: they were counted where they ran.
    """
    own = [node for node in result.nodes if INHERITED not in node.data]
    return [
        (
            result.run_id,
            node.id,
            node.visit,
            node.status,
            node.model_resolved,
            node.attempts[-1].provider if node.attempts else None,
            node.usage.prompt_tokens,
            node.usage.completion_tokens,
            node.usage.cost_micro_usd,
            float(node.timings.duration_s),
            int(node.cache_hit),
            node.error.code if node.error else None,
        )
        for node in own
    ] + _judge_row(result)


def _judge_row(result: RunResult) -> list[tuple[Any, ...]]:
    nodes = sum((node.usage for node in result.nodes), Usage())
    tokens = (
        result.usage.prompt_tokens - nodes.prompt_tokens,
        result.usage.completion_tokens - nodes.completion_tokens,
    )
    if max(tokens) <= 0:
        return []
    cost = result.usage.cost_micro_usd - nodes.cost_micro_usd
    return [(result.run_id, JUDGE_NODE, 1, "completed", None, None, *tokens, cost, 0.0, 0, None)]


def insert_usage(tx: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write them; those of the same visit are replaced."""
    newest = {row[:3]: row for row in rows}
    if newest:
        tx.executemany(_KEEP_USAGE, list(newest.values()))
