"""What ended long ago is removed, so that the database stops growing; and whose turn it is to do so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.stores.checkpoint_queries import drop_threads
from actors.stores.database import Transaction
from actors.stores.kept_calls import prune_calls
from actors.stores.parameter_lists import marks, padded_parts
from actors.stores.records import Pruned
from registries.contracts.config import RetentionConfig

_DAY_S = 86_400.0
_AT_ONCE = 512
_SWEPT = "prune.checkpoints.swept"
"""Row of turns: up to which end of a run (seconds) checkpoints were removed. Without it each pass would look
at all runs that are kept, most of which have none left."""

_OLD_RUNS = (
    "SELECT run_id, flow_version FROM runs WHERE finished_at < ?"
    " AND status IN ('completed', 'failed', 'cancelled') ORDER BY finished_at LIMIT ? {skip_locked}"
)
_OLD_STATES = (
    "SELECT run_id, status, finished_at FROM runs WHERE finished_at > ? AND finished_at < ?"
    " AND status IN ('completed', 'failed', 'cancelled')"
    " AND EXISTS (SELECT 1 FROM checkpoints c WHERE c.thread_id = runs.run_id)"
    " ORDER BY finished_at LIMIT ?"
)
_UNUSED_FLOWS = (
    "AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.flow_version = flow_versions.version)"
    " AND EXISTS (SELECT 1 FROM flow_versions n WHERE n.name = flow_versions.name"
    " AND n.first_used_at > flow_versions.first_used_at)"
)
_SUPERSEDED = (
    "checkpoint_id < (SELECT MAX(n.checkpoint_id) FROM checkpoints n"
    " WHERE n.thread_id = {table}.thread_id AND n.ns = {table}.ns)"
)
_TAKE_TURN = (
    "INSERT INTO turns (job, taken_at) VALUES (?, {now} - ?) ON CONFLICT (job) DO UPDATE"
    " SET taken_at = excluded.taken_at WHERE turns.taken_at <= {now} - ? OR turns.taken_at > {now} + ?"
)
_SET_SWEPT = (
    "INSERT INTO turns (job, taken_at) VALUES (?, ?)"
    " ON CONFLICT (job) DO UPDATE SET taken_at = excluded.taken_at"
)


def prune(tx: Transaction, policy: RetentionConfig, limit: int) -> Pruned:
    """Remove what the policy no longer keeps, of at most ``limit`` runs each; see Store.prune.

    With a run go its events, usage, feedback, keys, checkpoints, and the version of its flow when no other
    run has it; a flow's newest version stays, for the next run will have it. A failed run keeps its newest
    states as long as itself: restart goes on from them. Answers to keyed model calls are kept as runs are.
    """
    now = float(tx.execute("SELECT {now}").fetchone()[0])
    runs = states = answers = 0
    if policy.runs_days:
        runs, states = _prune_runs(tx, now - policy.runs_days * _DAY_S, limit)
        answers = prune_calls(tx, now - policy.runs_days * _DAY_S, limit)
    if policy.checkpoints_days:
        states += _prune_checkpoints(tx, now - policy.checkpoints_days * _DAY_S, limit)
    return Pruned(runs, states, answers)


def take_turn(tx: Transaction, job: str, every_s: float, again_s: float | None = None) -> bool:
    """Whether the caller is the one to do the job now: of many at once one is. See Store.turn.

    By the database's clock. A turn that lies more than a period in the future (the clock was set back) counts
    as none.
    """
    period_s = float(every_s)
    early_s = 0.0 if again_s is None else max(0.0, period_s - again_s)
    return tx.execute(_TAKE_TURN, (job, early_s, period_s, period_s)).rowcount == 1


def _prune_runs(tx: Transaction, ended_before: float, limit: int) -> tuple[int, int]:
    old = tx.execute(_OLD_RUNS, (ended_before, limit)).fetchall()
    run_ids = [row[0] for row in old]
    states = drop_threads(tx, run_ids)
    for some in padded_parts(run_ids, _AT_ONCE):
        chosen = f"WHERE run_id IN ({marks(len(some))})"
        tx.execute(f"DELETE FROM idempotency_keys {chosen}", some)
        # Events, usage and feedback go with it (ON DELETE CASCADE).
        tx.execute(f"DELETE FROM runs {chosen}", some)
    for some in padded_parts(sorted({row[1] for row in old}), _AT_ONCE):
        tx.execute(f"DELETE FROM flow_versions WHERE version IN ({marks(len(some))}) {_UNUSED_FLOWS}", some)
    return len(run_ids), states


def _prune_checkpoints(tx: Transaction, ended_before: float, limit: int) -> int:
    """Goes on until something was removed or nothing is left: zero must mean the end to the caller."""
    row = tx.execute("SELECT taken_at FROM turns WHERE job = ?", (_SWEPT,)).fetchone()
    swept = first = float(row[0]) if row is not None else 0.0
    removed = 0
    while not removed and swept < ended_before:
        old, swept = _next_ended(tx, swept, ended_before, limit)
        removed = drop_threads(tx, [run_id for run_id, status in old if status != "failed"])
        removed += _drop_superseded(tx, [run_id for run_id, status in old if status == "failed"])
    if swept > first:
        tx.execute(_SET_SWEPT, (_SWEPT, swept))
    return removed


def _next_ended(
    tx: Transaction, after: float, before: float, limit: int
) -> tuple[list[tuple[str, str]], float]:
    """The next runs to end that have states, and up to where that is all; ties come together."""
    rows: Sequence[Sequence[Any]] = tx.execute(_OLD_STATES, (after, before, limit)).fetchall()
    if len(rows) < limit:
        return [(row[0], row[1]) for row in rows], before
    last = float(rows[-1][2])
    ties = tx.execute(
        "SELECT run_id, status FROM runs WHERE finished_at = ?"
        " AND status IN ('completed', 'failed', 'cancelled')",
        (last,),
    ).fetchall()
    taken = {row[0]: row[1] for row in (*rows, *ties)}
    return list(taken.items()), last


def _drop_superseded(tx: Transaction, thread_ids: Sequence[str]) -> int:
    """Leave the newest checkpoint of each namespace, with its writes."""
    removed = 0
    for some in padded_parts(thread_ids, _AT_ONCE):
        chosen = f"WHERE thread_id IN ({marks(len(some))}) AND"
        for table in ("checkpoint_writes", "checkpoints"):
            superseded = _SUPERSEDED.replace("{table}", table)
            gone = tx.execute(f"DELETE FROM {table} {chosen} {superseded}", some).rowcount
            removed += gone if table == "checkpoints" else 0
    return removed
