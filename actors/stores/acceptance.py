"""How a run comes into the database: queued, or taken at once by the process that brings it."""

from __future__ import annotations

from typing import Any

from actors.stores.checkpoint_queries import insert_checkpoints
from actors.stores.database import Transaction
from actors.stores.event_rows import add_event
from actors.stores.idempotency import take_key
from actors.stores.json_text import dump_json
from actors.stores.records import Accepted, ClaimedRun, Lease, NewRun
from registries.contracts.errors import Conflict

_NAMES = (
    "INSERT INTO runs (run_id, tenant, user_name, request_id, flow, flow_version, priority, parent,"
    " conversation_id, request, traceparent, deadline_at, created_at, queued_at, last_seq, status"
)
_VALUES = "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {now} + ?, {now}, {now}, 1"
_ONCE = "ON CONFLICT (run_id) DO NOTHING"
_QUEUE = f"{_NAMES}) {_VALUES}, 'queued') {_ONCE}"
_QUEUE_AND_CLAIM = (
    f"{_NAMES}, attempts, lease_token, lease_owner, lease_until, started_at)"
    f" {_VALUES}, 'running', 1, 1, ?, {{lease_now}} + ?, {{now}}) {_ONCE}"
)
_KEEP_FLOW = (
    "INSERT INTO flow_versions (version, name, spec, first_used_at) VALUES (?, ?, ?, {now})"
    " ON CONFLICT (version) DO NOTHING"
)


def accept(tx: Transaction, run: NewRun) -> Accepted:
    """See RunStore.accept."""
    known = take_key(tx, run.order.tenant, run.key, run.order.run_id)
    if known is not None:
        return known
    if not tx.changes_one(_QUEUE, _row(run)):
        raise Conflict(f"there is a run {run.order.run_id} already", param="run_id")
    _write_first(tx, run)
    return Accepted(run.order.run_id, "queued", True)


def accept_claimed(tx: Transaction, run: NewRun, owner: str, ttl_s: float) -> ClaimedRun | str | None:
    """Accept and claim in one: the run; its id when it was there already; None when its key made another."""
    order = run.order
    known = take_key(tx, order.tenant, run.key, order.run_id)
    if known is not None:
        return known.run_id if known.run_id == order.run_id else None
    if not tx.changes_one(_QUEUE_AND_CLAIM, (*_row(run), owner, float(ttl_s))):
        return order.run_id
    _write_first(tx, run)
    return ClaimedRun(
        order=order.model_copy(update={"attempt": 1}),
        flow_version=run.flow_version,
        flow_spec=run.flow_spec,
        lease=Lease(order.run_id, 1),
        last_seq=1,
    )


def _row(run: NewRun) -> tuple[Any, ...]:
    order, request = run.order, run.order.request
    return (
        order.run_id,
        order.tenant,
        order.user,
        order.request_id,
        request.flow_type,
        run.flow_version,
        request.priority,
        run.parent,
        request.conversation_id,
        request.model_dump_json(),
        order.traceparent,
        float(order.deadline_s),
    )


def _write_first(tx: Transaction, run: NewRun) -> None:
    order, request = run.order, run.order.request
    # Always, although it is there nearly always: to ask first would be a round trip.
    tx.executemany(_KEEP_FLOW, [(run.flow_version, request.flow_type, dump_json(run.flow_spec))])
    data: dict[str, Any] = {"flow": request.flow_type, "flow_version": run.flow_version}
    data["priority"] = request.priority
    if run.parent is not None:
        data["parent"] = run.parent
    add_event(tx, order.run_id, 1, "run.queued", 0, data)
    if run.checkpoints:
        insert_checkpoints(tx, run.checkpoints)
