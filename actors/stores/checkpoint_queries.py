"""Graph states and the writes towards the next ones; one SQL for every database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.stores.database import Transaction
from actors.stores.parameter_lists import marks, padded_parts
from actors.stores.records import CheckpointRow, WriteRow

_KEYS_AT_ONCE = 512
"""Checkpoints whose writes one query reads, or threads that one statement removes."""

_CHECKPOINT = "thread_id, ns, checkpoint_id, parent_id, type, data, metadata"
_WRITE = "thread_id, ns, checkpoint_id, task_id, idx, channel, type, data, task_path"
_INSERT_WRITE = f"INSERT INTO checkpoint_writes ({_WRITE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT"

Stored = tuple[CheckpointRow, list[WriteRow]]


def get_checkpoint(tx: Transaction, thread_id: str, ns: str, checkpoint_id: str | None) -> Stored | None:
    """That checkpoint, or the newest of the namespace (ids sort by time), with its writes."""
    sql = f"SELECT {_CHECKPOINT} FROM checkpoints WHERE thread_id = ? AND ns = ?"
    if checkpoint_id is None:
        cursor = tx.execute(f"{sql} ORDER BY checkpoint_id DESC LIMIT 1", (thread_id, ns))
    else:
        cursor = tx.execute(f"{sql} AND checkpoint_id = ?", (thread_id, ns, checkpoint_id))
    row = cursor.fetchone()
    return _with_writes(tx, [row])[0] if row is not None else None


def list_checkpoints(
    tx: Transaction, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
) -> list[Stored]:
    """Newest first; None means any thread, any namespace, no bound."""
    clauses = [
        (clause, value)
        for clause, value in (("thread_id = ?", thread_id), ("ns = ?", ns), ("checkpoint_id < ?", before))
        if value is not None
    ]
    where = f" WHERE {' AND '.join(clause for clause, _ in clauses)}" if clauses else ""
    parameters: list[Any] = [value for _, value in clauses]
    sql = f"SELECT {_CHECKPOINT} FROM checkpoints{where} ORDER BY checkpoint_id DESC, thread_id, ns"
    if limit is not None:
        sql, parameters = f"{sql} LIMIT ?", [*parameters, limit]
    return _with_writes(tx, tx.execute(sql, parameters).fetchall())


def insert_checkpoints(tx: Transaction, rows: Sequence[CheckpointRow]) -> None:
    """Write them; one that exists, or came earlier in ``rows``, is replaced."""
    newest = {(row.thread_id, row.ns, row.checkpoint_id): row for row in rows}.values()
    if newest:
        tx.executemany(
            f"INSERT INTO checkpoints ({_CHECKPOINT}, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, {{now}})"
            " ON CONFLICT (thread_id, ns, checkpoint_id) DO UPDATE SET parent_id = excluded.parent_id,"
            " type = excluded.type, data = excluded.data, metadata = excluded.metadata",
            [(r.thread_id, r.ns, r.checkpoint_id, r.parent_id, r.type, r.data, r.metadata) for r in newest],
        )


def insert_writes(tx: Transaction, rows: Sequence[WriteRow]) -> None:
    """Write them; one with a negative idx replaces (errors, interrupts), of the others the first stays."""
    newest = {
        (row.thread_id, row.ns, row.checkpoint_id, row.task_id, row.idx): row for row in rows if row.idx < 0
    }
    if replacing := [_values(row) for row in newest.values()]:
        tx.executemany(
            f"{_INSERT_WRITE} (thread_id, ns, checkpoint_id, task_id, idx) DO UPDATE SET"
            " channel = excluded.channel, type = excluded.type, data = excluded.data,"
            " task_path = excluded.task_path",
            replacing,
        )
    keeping = [_values(row) for row in rows if row.idx >= 0]
    if keeping:
        tx.executemany(f"{_INSERT_WRITE} DO NOTHING", keeping)


def drop_threads(tx: Transaction, thread_ids: Sequence[str]) -> int:
    """Remove all checkpoints and writes of these threads; how many checkpoints there were."""
    removed = 0
    for some in padded_parts(thread_ids, _KEYS_AT_ONCE):
        chosen = f"WHERE thread_id IN ({marks(len(some))})"
        tx.execute(f"DELETE FROM checkpoint_writes {chosen}", some)
        removed += tx.execute(f"DELETE FROM checkpoints {chosen}", some).rowcount
    return removed


def drop_checkpoints(tx: Transaction, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
    """Remove these checkpoints of a thread, in every namespace, with their writes."""
    for some in padded_parts(checkpoint_ids, _KEYS_AT_ONCE):
        chosen = f"WHERE thread_id = ? AND checkpoint_id IN ({marks(len(some))})"
        for table in ("checkpoint_writes", "checkpoints"):
            tx.execute(f"DELETE FROM {table} {chosen}", [thread_id, *some])


def _with_writes(tx: Transaction, rows: Sequence[Sequence[Any]]) -> list[Stored]:
    stored: dict[tuple[str, str, str], Stored] = {}
    for row in rows:
        thread_id, space, checkpoint_id, parent_id, type, data, metadata = row
        kept = CheckpointRow(thread_id, space, checkpoint_id, parent_id, type, bytes(data), bytes(metadata))
        stored[kept.thread_id, kept.ns, kept.checkpoint_id] = (kept, [])
    columns = ", ".join(f"w.{name}" for name in _WRITE.split(", "))
    for some in padded_parts(list(stored), _KEYS_AT_ONCE):
        # DISTINCT, as a key may be there twice. CROSS JOIN: SQLite goes through the wanted checkpoints and
        # probes the writes' key.
        found = tx.execute(
            "WITH wanted (thread_id, ns, checkpoint_id) AS (SELECT DISTINCT * FROM"
            f" (VALUES {', '.join(['(?, ?, ?)'] * len(some))}) given)"
            f" SELECT {columns} FROM wanted k CROSS JOIN checkpoint_writes w"
            " WHERE w.thread_id = k.thread_id AND w.ns = k.ns AND w.checkpoint_id = k.checkpoint_id",
            [part for key in some for part in key],
        ).fetchall()
        for *key, task_id, idx, channel, type, data, task_path in found:
            thread_id, space, checkpoint_id = key
            write = WriteRow(
                thread_id, space, checkpoint_id, task_id, idx, channel, type, bytes(data), task_path
            )
            stored[thread_id, space, checkpoint_id][1].append(write)
    for _, writes in stored.values():
        # Sorted here: databases differ in how they sort text.
        writes.sort(key=lambda write: (write.task_id, write.idx))
    return list(stored.values())


def _values(row: WriteRow) -> tuple[Any, ...]:
    return (
        row.thread_id,
        row.ns,
        row.checkpoint_id,
        row.task_id,
        row.idx,
        row.channel,
        row.type,
        row.data,
        row.task_path,
    )
