"""What the holder of a run writes; each write proves the lease in the statement that changes the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.stores.checkpoint_queries import insert_checkpoints, insert_writes
from actors.stores.database import Transaction
from actors.stores.endings import CANCELLED, end_run, insert_usage, usage_rows
from actors.stores.event_rows import EventRow, event_rows, insert_events
from actors.stores.json_text import dump_json
from actors.stores.records import CheckpointRow, Lease, RunWrite, WriteRow
from registries.contracts.errors import Conflict, InternalError, LeaseLost
from registries.contracts.runs import NODE_ENDS, RunResult, Waiting

# A lease that ran out but was not taken over may still write: the token decides, nobody else has begun.
_HELD = "WHERE run_id = ? AND lease_token = ? AND status = 'running'"
_COMMIT_STATE = f"UPDATE runs SET last_seq = last_seq {_HELD}"
_COMMIT = f"UPDATE runs SET last_seq = ? {_HELD} AND last_seq = ?"
# A run that gets on is not what kills its runners; who only stood beside such a run must not end with it.
_COMMIT_STEP = f"UPDATE runs SET deaths = 0, last_seq = ? {_HELD} AND last_seq = ?"
_FINISH = (
    "UPDATE runs SET status = ?, result = ?, answer = ?, error_code = ?, finished_at = {now}, waiting = NULL,"
    f" lease_owner = NULL, last_seq = ? {_HELD} AND last_seq = ?"
)
_WAIT = (
    "UPDATE runs SET status = 'waiting', waiting = ?, decision = NULL, lease_owner = NULL,"
    f" last_seq = ? {_HELD} AND last_seq = ?"
)
_RELEASE = f"UPDATE runs SET status = 'queued', lease_owner = NULL, last_seq = ? {_HELD} AND last_seq = ?"
_STATE = "SELECT status, last_seq, cancel_requested FROM runs WHERE run_id = ? AND lease_token = ?"
_EVENT = "SELECT time, type FROM events WHERE run_id = ? AND seq = ?"


@dataclass(frozen=True, slots=True)
class WriteRows:
    """A RunWrite as rows, made before the transaction: while it is open, every other writer waits."""

    events: list[EventRow]
    checkpoints: Sequence[CheckpointRow]
    writes: Sequence[WriteRow]

    @property
    def before(self) -> int:
        """The seq that the run must have."""
        return self.events[0][1] - 1

    @property
    def last_seq(self) -> int:
        """The seq that the run has afterwards."""
        return self.events[-1][1]

    @property
    def has_node_end(self) -> bool:
        """Whether a node of the run has ended."""
        return any(row[3] in NODE_ENDS for row in self.events)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A RunResult as columns (status, result, answer, error_code) and rows of usage."""

    columns: tuple[str, str, str, str | None]
    usage: Sequence[tuple[Any, ...]]


def prepare_write(lease: Lease, write: RunWrite, last_type: str | None = None) -> WriteRows:
    """Raises Conflict for events with gaps or of another run.

    ``last_type`` is the event that a change of status must come with (InternalError when it does not).
    """
    rows = event_rows(write.events)
    for offset, row in enumerate(rows):
        if row[0] != lease.run_id or row[1] != rows[0][1] + offset:
            raise Conflict(f"the events of run {lease.run_id} have a gap, or are another run's: {row[:2]}")
    if last_type is not None and (not rows or rows[-1][3] != last_type):
        raise InternalError(f"run {lease.run_id}: its change of status comes without {last_type}")
    return WriteRows(rows, write.checkpoints, write.writes)


def prepare_result(result: RunResult) -> StoredResult:
    """The answer's NULs, which PostgreSQL's TEXT does not take, stay in the result's JSON only."""
    error_code = result.error.code if result.error else None
    answer = result.answer.replace("\0", "\ufffd")
    return StoredResult((result.status, result.model_dump_json(), answer, error_code), usage_rows(result))


def commit(tx: Transaction, lease: Lease, rows: WriteRows) -> None:
    """See RunStore.commit."""
    if not rows.events:
        if not tx.changes_one(_COMMIT_STATE, (lease.run_id, lease.token)):
            raise _lost(lease)
        _insert(tx, rows)
    elif _change(tx, lease, rows, "running", _COMMIT_STEP if rows.has_node_end else _COMMIT):
        _insert(tx, rows)


def finish(tx: Transaction, lease: Lease, result: StoredResult, rows: WriteRows) -> None:
    """See RunStore.finish."""
    if _change(tx, lease, rows, result.columns[0], _FINISH, *result.columns):
        _insert(tx, rows)
        insert_usage(tx, result.usage)


def wait(tx: Transaction, lease: Lease, waiting: Waiting, rows: WriteRows) -> None:
    """See RunStore.wait."""
    if _change(tx, lease, rows, "waiting", _WAIT, dump_json(waiting.model_dump(mode="json"))):
        _insert(tx, rows)
        _heed_cancel(tx, lease)


def release(tx: Transaction, lease: Lease, rows: WriteRows) -> None:
    """See RunStore.release."""
    if _change(tx, lease, rows, "queued", _RELEASE):
        _insert(tx, rows)
        _heed_cancel(tx, lease)


def _change(tx: Transaction, lease: Lease, rows: WriteRows, status: str, sql: str, *values: Any) -> bool:
    """Whether to go on; False when this very write is in the database already.

    That is so when the answer to a commit was lost and its caller tries again: nobody has claimed the run
    since, and status and last event are the write's. Raises LeaseLost, and Conflict for a seq that does not
    follow.
    """
    if tx.changes_one(sql, (*values, rows.last_seq, lease.run_id, lease.token, rows.before)):
        return True
    state = tx.execute(_STATE, (lease.run_id, lease.token)).fetchone()
    if state is not None and (state[0], state[1]) == (status, rows.last_seq):
        last = tx.execute(_EVENT, (lease.run_id, rows.last_seq)).fetchone()
        if tuple(last) == (rows.events[-1][2], rows.events[-1][3]):
            return False
    if state is not None and state[0] == "running":
        raise Conflict(
            f"run {lease.run_id} has {state[1]} events, those written begin after {rows.before}: a gap"
        )
    raise _lost(lease)


def _insert(tx: Transaction, rows: WriteRows) -> None:
    insert_events(tx, rows.events)
    if rows.checkpoints:
        insert_checkpoints(tx, rows.checkpoints)
    if rows.writes:
        insert_writes(tx, rows.writes)


def _heed_cancel(tx: Transaction, lease: Lease) -> None:
    # Asked for while it ran and not seen before it stopped: nobody holds it any more who could heed it.
    if tx.execute(_STATE, (lease.run_id, lease.token)).fetchone()[2]:
        end_run(tx, lease.run_id, "cancelled", CANCELLED)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"run {lease.run_id} is no longer held by claim {lease.token}")
