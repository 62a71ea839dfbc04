"""What people ask of a run that is there already: to end, to go on, to begin again."""

from __future__ import annotations

from actors.stores.database import Transaction
from actors.stores.endings import CANCELLED, end_run
from actors.stores.event_rows import add_event
from actors.stores.idempotency import take_key
from actors.stores.json_text import dump_json, load_json
from actors.stores.records import Accepted, IdempotencyKey
from registries.contracts.errors import Conflict, NotFound, ValidationError
from registries.contracts.runs import Decision, RunResult, RunStatus

_FIND = "SELECT status, attempts, last_seq, waiting FROM runs WHERE run_id = ? AND tenant = ? {for_update}"
_MARK = "UPDATE runs SET cancel_requested = 1 WHERE run_id = ?"
_RESUME = (
    "UPDATE runs SET status = 'queued', waiting = NULL, decision = ?, queued_at = {now},"
    " deadline_at = {now} + ?, last_seq = ? WHERE run_id = ?"
)
# The decision stays: a run that failed before it heeded it still has to.
_RESTART = (
    "UPDATE runs SET status = 'queued', deaths = 0, cancel_requested = 0, result = NULL, answer = NULL,"
    " error_code = NULL, finished_at = NULL, queued_at = {now}, deadline_at = {now} + ?, last_seq = ?"
    " WHERE run_id = ?"
)


def cancel(
    tx: Transaction, run_id: str, tenant: str, key: IdempotencyKey | None, ended: list[RunResult]
) -> RunStatus:
    """See RunStore.cancel; ``ended``: what ended right here, because nobody held it."""
    ended.clear()  # of a try that was rolled back
    known = take_key(tx, tenant, key, run_id)
    if known is not None:
        return known.status
    status, _, _, _ = _find(tx, run_id, tenant)
    if status in ("queued", "waiting"):
        ended.append(end_run(tx, run_id, "cancelled", CANCELLED))
        return "cancelled"
    if status == "running":
        tx.execute(_MARK, (run_id,))
        return "running"
    if status == "cancelled":
        return "cancelled"
    raise Conflict(f"run {run_id} has {status} already", param="run_id")


def resume(
    tx: Transaction,
    run_id: str,
    tenant: str,
    decision: Decision,
    deadline_s: float,
    key: IdempotencyKey | None,
) -> Accepted:
    """See RunStore.resume."""
    known = take_key(tx, tenant, key, run_id)
    if known is not None:
        return known
    status, attempts, last_seq, waiting_json = _find(tx, run_id, tenant)
    if status != "waiting" or waiting_json is None:
        raise Conflict(f"run {run_id} does not wait for a decision, it is {status}", param="run_id")
    waiting = load_json(waiting_json)
    if decision.interrupt_id not in ("", waiting["interrupt_id"]):
        raise Conflict(f"run {run_id} waits with another question now", param="interrupt_id")
    if decision.action not in waiting["actions"]:
        allowed = ", ".join(waiting["actions"])
        raise ValidationError(f"{decision.action!r} is no answer here; allowed: {allowed}", param="action")
    data = {**decision.model_dump(mode="json"), "interrupt_id": waiting["interrupt_id"]}
    tx.execute(_RESUME, (dump_json(data), float(deadline_s), last_seq + 1, run_id))
    add_event(tx, run_id, last_seq + 1, "run.resumed", attempts, {"node": waiting["node"], "decision": data})
    return Accepted(run_id, "queued", True, last_seq + 1)


def restart(
    tx: Transaction, run_id: str, tenant: str, deadline_s: float, key: IdempotencyKey | None
) -> Accepted:
    """See RunStore.restart."""
    known = take_key(tx, tenant, key, run_id)
    if known is not None:
        return known
    status, attempts, last_seq, _ = _find(tx, run_id, tenant)
    if status != "failed":
        raise ValidationError(f"run {run_id} is {status}; only a failed run can be restarted", param="run_id")
    tx.execute(_RESTART, (float(deadline_s), last_seq + 1, run_id))
    add_event(tx, run_id, last_seq + 1, "run.restarted", attempts, {"deadline_s": deadline_s})
    return Accepted(run_id, "queued", True, last_seq + 1)


def _find(tx: Transaction, run_id: str, tenant: str) -> tuple[RunStatus, int, int, str | None]:
    row = tx.execute(_FIND, (run_id, tenant)).fetchone()
    if row is None:
        raise NotFound(f"unknown run {run_id!r}", param="run_id")
    status, attempts, last_seq, waiting = row
    return status, attempts, last_seq, waiting
