"""Who runs what: taking runs, keeping them, giving back those of processes that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pydantic

from actors.stores.acceptance import accept_claimed
from actors.stores.database import Transaction
from actors.stores.endings import CANCELLED, TOO_LATE, end_run, park
from actors.stores.event_rows import add_event
from actors.stores.json_text import load_json
from actors.stores.records import ClaimedRun, Lease, NewRun, Renewal
from registries.contracts.errors import ValidationError
from registries.contracts.runs import Decision, ErrorFact, RunOrder, RunRequest, RunResult

MAX_ROUNDS = 16
"""Looks at the queue in one claim_next; more than one only where runs were ended instead of taken."""

_COLUMNS = (
    "SELECT run_id, tenant, user_name, request_id, flow_version, status, attempts, deaths, lease_token,"
    " last_seq, request, decision, traceparent, cancel_requested, deadline_at - {now}, {now} - queued_at,"
    " (SELECT spec FROM flow_versions f WHERE f.version = runs.flow_version), parent,"
    " lease_owner FROM runs"
)
_ORPHANED = "status = 'running' AND lease_until <= {lease_now}"
_ONE = f"{_COLUMNS} WHERE run_id = ? AND (status = 'queued' OR ({_ORPHANED})) {{for_update}}"
_DEAD = f"{_COLUMNS} WHERE {_ORPHANED} ORDER BY lease_until LIMIT ? {{skip_locked}}"
_QUEUED = (
    f"{_COLUMNS} WHERE status = 'queued' ORDER BY priority DESC, queued_at, run_id LIMIT ? {{skip_locked}}"
)
_TAKE = (
    "UPDATE runs SET status = 'running', attempts = attempts + 1, deaths = ?, lease_token = ?,"
    " lease_owner = ?, lease_until = {lease_now} + ?, started_at = COALESCE(started_at, {now})"
    " WHERE run_id = ?"
)
_OTHERS = (
    "SELECT run_id, attempts, last_seq, cancel_requested FROM runs"
    " WHERE status = 'running' AND substr(lease_owner, 1, ?) <> ? ORDER BY run_id {for_update}"
)
# The token rises: the owner is gone for all we know, and if it is not, it has lost the run.
_GIVE_BACK = (
    "UPDATE runs SET status = 'queued', lease_owner = NULL, lease_token = lease_token + 1, last_seq = ?"
    " WHERE run_id = ?"
)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A run that could be taken, its row locked by this transaction."""

    run_id: str
    tenant: str
    user: str
    request_id: str
    flow_version: str
    status: str
    attempts: int
    deaths: int
    token: int
    last_seq: int
    request: str
    decision: str | None
    traceparent: str | None
    cancel_requested: int
    remaining_s: float
    queued_s: float
    spec: str | None
    parent: str | None
    owner: str | None


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who takes runs, for how long at first, and which it takes no more; ``ended`` instead of being taken."""

    owner: str
    ttl_s: float
    max_deaths: int
    ended: list[RunResult] = field(default_factory=list)


def claim(tx: Transaction, run: NewRun | str, claimant: Claimant) -> ClaimedRun | None:
    """See RunStore.claim."""
    claimant.ended.clear()  # of a try that was rolled back
    if isinstance(run, NewRun):
        accepted = accept_claimed(tx, run, claimant.owner, claimant.ttl_s)
        if not isinstance(accepted, str):
            return accepted
        run = accepted
    row = tx.execute(_ONE, (run,)).fetchone()
    return _take(tx, _Candidate(*row), claimant) if row is not None else None


def claim_next(tx: Transaction, claimant: Claimant, limit: int) -> list[ClaimedRun]:
    """See RunStore.claim_next."""
    claimant.ended.clear()
    claimed: list[ClaimedRun] = []
    for sql in (_DEAD, _QUEUED):
        for _ in range(MAX_ROUNDS):
            wanted = limit - len(claimed)
            rows = tx.execute(sql, (wanted,)).fetchall() if wanted > 0 else []
            # A process that was stopped in here finds its own fresh leases run out: one run, taken twice.
            mine = {run.lease.run_id for run in claimed}
            others = [run for run in (_Candidate(*row) for row in rows) if run.run_id not in mine]
            taken = [_take(tx, run, claimant) for run in others]
            claimed += [run for run in taken if run is not None]
            if len(rows) < wanted or None not in taken:
                break
    return claimed


def renew(tx: Transaction, leases: Sequence[Lease], ttl_s: float) -> Renewal:
    """See LeaseRenewer.renew."""
    if not leases:
        return Renewal(frozenset(), frozenset())
    values: list[Any] = [value for lease in leases for value in (lease.run_id, lease.token)]
    rows = tx.execute(_renewal(len(leases)), (*values, float(ttl_s))).fetchall()
    return Renewal(
        frozenset(Lease(run_id, token) for run_id, token, _ in rows),
        frozenset(run_id for run_id, _, cancelled in rows if cancelled),
    )


def release_orphans(tx: Transaction, owner_prefix: str) -> int:
    """See RunStore.release_orphans."""
    rows = tx.execute(_OTHERS, (len(owner_prefix), owner_prefix)).fetchall()
    for run_id, attempts, last_seq, cancel_requested in rows:
        tx.execute(_GIVE_BACK, (last_seq + 1, run_id))
        reason = {"reason": "the runtime that ran it has ended"}
        add_event(tx, run_id, last_seq + 1, "run.released", attempts, reason)
        if cancel_requested:
            end_run(tx, run_id, "cancelled", CANCELLED)
    return len(rows)


def _take(tx: Transaction, run: _Candidate, claimant: Claimant) -> ClaimedRun | None:
    """The run, now the claimant's; None when it was ended instead."""
    # Whoever takes its own run again was not dead: the database was away for longer than the lease.
    died = run.status == "running" and run.owner != claimant.owner
    deaths = run.deaths + died
    if (ended := _ended(tx, run, deaths, claimant.max_deaths if died else None)) is not None:
        claimant.ended.append(ended)
        return None
    try:
        claimed = _claimed(run, died)
    except ValueError as error:
        # Accepted by another version of this program, or damaged. It must not stand in everybody's way for
        # ever. pydantic's errors and those of JSON both are ValueErrors.
        faults = f"{error.error_count()} faults" if isinstance(error, pydantic.ValidationError) else "no JSON"
        message = f"this version cannot read the run's request: {faults}"
        fact = ErrorFact(code=ValidationError.code, message=message, param="request")
        claimant.ended.append(end_run(tx, run.run_id, "failed", fact))
        return None
    tx.execute(_TAKE, (deaths, run.token + 1, claimant.owner, float(claimant.ttl_s), run.run_id))
    return claimed


def _ended(tx: Transaction, run: _Candidate, deaths: int, max_deaths: int | None) -> RunResult | None:
    """The end of a run that may not go on, and therefore ends here; ``max_deaths`` for one that just died."""
    if run.cancel_requested:
        return end_run(tx, run.run_id, "cancelled", CANCELLED)
    if max_deaths is not None and deaths >= max_deaths:
        return park(tx, run.run_id, deaths, run.last_seq)
    if run.remaining_s <= 0:
        return end_run(tx, run.run_id, "failed", TOO_LATE)
    return None


def _claimed(run: _Candidate, taken_over: bool) -> ClaimedRun:
    return ClaimedRun(
        order=RunOrder(
            run_id=run.run_id,
            request_id=run.request_id,
            request=RunRequest.model_validate_json(run.request),
            deadline_s=run.remaining_s,
            tenant=run.tenant,
            user=run.user,
            traceparent=run.traceparent,
            attempt=run.attempts + 1,
        ),
        flow_version=run.flow_version,
        flow_spec=load_json(run.spec) if run.spec is not None else {},
        lease=Lease(run.run_id, run.token + 1),
        last_seq=run.last_seq,
        queued_s=max(0.0, run.queued_s),
        decision=Decision.model_validate_json(run.decision) if run.decision else None,
        parent=run.parent,
        taken_over=taken_over,
    )


@lru_cache(maxsize=512)
def _renewal(count: int) -> str:
    # The rows are locked in one order: another process may be renewing or committing the same ones.
    pairs = ", ".join(["(?, ?)"] * count)
    return (
        "WITH held AS (SELECT run_id FROM runs WHERE status = 'running'"
        f" AND (run_id, lease_token) IN (VALUES {pairs}) ORDER BY run_id {{for_update}})"
        " UPDATE runs SET lease_until = {lease_now} + ? WHERE run_id IN (SELECT run_id FROM held)"
        " RETURNING run_id, lease_token, cancel_requested"
    )
