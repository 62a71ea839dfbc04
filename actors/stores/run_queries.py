"""Reading runs, their events and their queue, and keeping ratings; one SQL for every database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.stores.database import Transaction
from actors.stores.idempotency import take_key
from actors.stores.json_text import load_json
from actors.stores.parameter_lists import next_power_of_two
from actors.stores.records import IdempotencyKey, QueueState, RunFilter
from registries.contracts.errors import NotFound
from registries.contracts.generation import Message
from registries.contracts.runs import Feedback, RunEvent

LISTED_CHARS = 200
"""How much of a prompt and of an answer a list shows."""
TAILED_AT_ONCE = 8192
"""Runs a tail query: two parameters each, and SQLite takes 32,766 of them (PostgreSQL 65,535)."""

_NOBODY = ("", 0)
"""Fills a tail up to a power of two: few texts of SQL, which drivers and databases keep."""

_COLUMNS: tuple[tuple[str, str], ...] = (
    ("run_id", "run_id"),
    ("status", "status"),
    ("flow", "flow"),
    ("flow_version", "flow_version"),
    ("priority", "priority"),
    ("user", "user_name"),
    ("request_id", "request_id"),
    ("conversation_id", "conversation_id"),
    ("parent", "parent"),
    ("attempts", "attempts"),
    ("deaths", "deaths"),
    ("owner", "lease_owner"),
    ("created_at", "created_at"),
    ("started_at", "started_at"),
    ("finished_at", "finished_at"),
    ("deadline_at", "deadline_at"),
    ("cancel_requested", "cancel_requested"),
    ("last_seq", "last_seq"),
    ("request", "request"),
    ("result", "result"),
    ("waiting", "waiting"),
)
_NAMES = tuple(name for name, _ in _COLUMNS)
_SELECT_RUN = f"SELECT {', '.join(column for _, column in _COLUMNS)} FROM runs"
_SELECT_EVENT = "SELECT e.run_id, e.seq, e.time, e.type, e.node, e.attempt, e.data FROM"


def get_run(tx: Transaction, run_id: str, tenant: str) -> dict[str, Any] | None:
    """The run as JSON values (keys: see RunStore.get), or None."""
    row = tx.execute(f"{_SELECT_RUN} WHERE run_id = ? AND tenant = ?", (run_id, tenant)).fetchone()
    if row is None:
        return None
    given = tx.execute(
        "SELECT user_name, rating, comment, created_at FROM feedback WHERE run_id = ?"
        " ORDER BY created_at, user_name",
        (run_id,),
    ).fetchall()
    names = ("user", "rating", "comment", "created_at")
    return {**_run(row), "feedback": [dict(zip(names, one, strict=True)) for one in given]}


def list_runs(tx: Transaction, tenant: str, filter: RunFilter) -> list[dict[str, Any]]:
    """Newest first (run_ids sort by time), at most ``filter.limit``; keys: see RunStore.list.

    A page goes on after a run_id, never at an offset: none is repeated or skipped while new runs come in.
    """
    clauses, parameters = _conditions(tenant, filter)
    rows = tx.execute(
        f"{_SELECT_RUN} WHERE {' AND '.join(clauses)} ORDER BY run_id DESC LIMIT ?",
        (*parameters, filter.limit),
    ).fetchall()
    return [_listed(_run(row)) for row in rows]


def events_after(tx: Transaction, run_id: str, tenant: str, after: int, limit: int) -> list[RunEvent]:
    """Durable events of one run with seq > after, in order; none for another tenant's run."""
    rows = tx.execute(
        f"{_SELECT_EVENT} events e JOIN runs r ON r.run_id = e.run_id"
        " WHERE e.run_id = ? AND r.tenant = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
        (run_id, tenant, after, limit),
    ).fetchall()
    return [_event(row) for row in rows]


def tail_events(tx: Transaction, after: Mapping[str, int]) -> list[RunEvent]:
    """New events of many runs (run_id → last seq seen), each run's in order.

    One query, one probe of the events' key a run: less than 1 µs each where nothing is new.
    """
    seen = list(after.items())
    rows: list[Any] = []
    for start in range(0, len(seen), TAILED_AT_ONCE):
        part = seen[start : start + TAILED_AT_ONCE]
        padded = (*part, *[_NOBODY] * (next_power_of_two(len(part)) - len(part)))
        # CROSS JOIN tells SQLite to go through the seen runs and probe the events, never the other way.
        sql = (
            f"WITH seen (run_id, seq) AS (VALUES {', '.join(['(?, ?)'] * len(padded))})"
            f" {_SELECT_EVENT} seen s CROSS JOIN events e WHERE e.run_id = s.run_id AND e.seq > s.seq"
            " ORDER BY e.run_id, e.seq"
        )
        rows += tx.execute(sql, [value for pair in padded for value in pair]).fetchall()
    return [_event(row) for row in rows]


def queue_state(tx: Transaction) -> QueueState:
    """Open runs of all tenants, by the partial indexes of the open states: ended runs cost nothing."""
    queued, running, waiting, oldest, now = tx.execute(
        "SELECT (SELECT COUNT(*) FROM runs WHERE status = 'queued'),"
        " (SELECT COUNT(*) FROM runs WHERE status = 'running'),"
        " (SELECT COUNT(*) FROM runs WHERE status = 'waiting'),"
        " (SELECT MIN(queued_at) FROM runs WHERE status = 'queued'), {now}"
    ).fetchone()
    age_s = 0.0 if oldest is None else max(0.0, float(now) - float(oldest))
    return QueueState(queued=queued, running=running, waiting=waiting, oldest_queued_s=age_s)


def flow_spec(tx: Transaction, version: str) -> dict[str, Any] | None:
    """The kept flow of this version, or None."""
    row = tx.execute("SELECT spec FROM flow_versions WHERE version = ?", (version,)).fetchone()
    return None if row is None else load_json(row[0])


def history(tx: Transaction, conversation_id: str, tenant: str, limit: int) -> list[Message]:
    """The last ``limit`` messages (not pairs) of the conversation's completed runs, newest last."""
    if limit <= 0:
        return []
    rows = tx.execute(
        "SELECT request, answer FROM runs WHERE tenant = ? AND conversation_id = ? AND status = 'completed'"
        " ORDER BY created_at DESC, run_id DESC LIMIT ?",
        (tenant, conversation_id, limit // 2 + 1),
    ).fetchall()
    turns: list[Message] = []
    for request, answer in reversed(rows):
        question = _asked(load_json(request))
        turns += [Message(role="user", content=question), Message(role="assistant", content=answer or "")]
    return turns[-limit:]


def add_feedback(
    tx: Transaction,
    run_id: str,
    tenant: str,
    user: str,
    feedback: Feedback,
    key: IdempotencyKey | None = None,
) -> None:
    """See RunStore.give_feedback."""
    if take_key(tx, tenant, key, run_id) is not None:
        return
    sql = "SELECT 1 FROM runs WHERE run_id = ? AND tenant = ?"
    if tx.execute(sql, (run_id, tenant)).fetchone() is None:
        raise NotFound(f"unknown run {run_id!r}", param="run_id")
    tx.execute(
        "INSERT INTO feedback (run_id, user_name, rating, comment, created_at) VALUES (?, ?, ?, ?, {now})"
        " ON CONFLICT (run_id, user_name) DO UPDATE SET"
        " rating = excluded.rating, comment = excluded.comment, created_at = excluded.created_at",
        (run_id, user, feedback.rating, feedback.comment),
    )


def _conditions(tenant: str, filter: RunFilter) -> tuple[list[str], list[Any]]:
    clauses = ["tenant = ?"]
    parameters: list[Any] = [tenant]
    if filter.statuses:
        clauses.append(f"status IN ({', '.join('?' * len(filter.statuses))})")
        parameters += filter.statuses
    for clause, value in (
        ("flow = ?", filter.flow),
        ("user_name = ?", filter.user),
        ("conversation_id = ?", filter.conversation_id),
        ("parent = ?", filter.parent),
        ("created_at >= ?", filter.created_after),
        ("created_at < ?", filter.created_before),
        ("run_id < ?", filter.before),
    ):
        if value is not None:
            clauses.append(clause)
            parameters.append(value)
    return clauses, parameters


def _run(row: Sequence[Any]) -> dict[str, Any]:
    run = dict(zip(_NAMES, row, strict=True))
    for name in ("request", "result", "waiting"):
        run[name] = load_json(run[name]) if run[name] else None
    run["cancel_requested"] = bool(run["cancel_requested"])
    return run


def _listed(run: dict[str, Any]) -> dict[str, Any]:
    """A run as a list shows it: what it was asked and what came out in short."""
    result = run["result"] or {}
    request = run["request"]
    return {
        **run,
        "request": {name: value for name, value in request.items() if name not in ("input", "prompt")},
        "result": {name: value for name, value in result.items() if name not in ("nodes", "answer")} or None,
        "prompt": _asked(request)[:LISTED_CHARS],
        "answer": result.get("answer", "")[:LISTED_CHARS],
        "usage": result.get("usage"),
        "error": result.get("error"),
    }


def _asked(request: Mapping[str, Any]) -> str:
    """The prompt, wherever it was given: an input of that name stands for an empty one, as in flows."""
    asked = request.get("prompt") or (request.get("input") or {}).get("prompt")
    return asked if isinstance(asked, str) else ""


def _event(row: Sequence[Any]) -> RunEvent:
    """Not validated again: what is committed was checked when it was written."""
    run_id, seq, at, kind, node, attempt, data = row
    return RunEvent.model_construct(
        run_id=run_id, seq=seq, time=at, type=kind, node=node, attempt=attempt, data=load_json(data)
    )
