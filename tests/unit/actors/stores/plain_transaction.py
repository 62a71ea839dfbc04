"""A transaction on a plain SQLite connection, for tests of queries without a backend around them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from actors.stores.schema import DURABLE_RUNS, KEPT_CALLS

_TYPES = {
    "{blob}": "BLOB",
    "{real}": "REAL",
    "{int}": "INTEGER",
    "{json}": "TEXT",
    "{strict}": " STRICT",
    "{strict_keyed}": " STRICT, WITHOUT ROWID",
}


class PlainTransaction:
    """SQL as the backends take it, with a clock that the test turns."""

    def __init__(self, path: str = ":memory:") -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.now = 1000.0
        for statement in (*DURABLE_RUNS, *KEPT_CALLS):
            for word, rendered in _TYPES.items():
                statement = statement.replace(word, rendered)
            self.connection.execute(statement)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(self._rendered(sql), parameters)

    def changes_one(self, sql: str, parameters: Sequence[Any] = ()) -> bool:
        return self.execute(sql, parameters).rowcount == 1

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.connection.executemany(self._rendered(sql), rows)

    def _rendered(self, sql: str) -> str:
        clock = repr(self.now)
        return sql.format(now=clock, lease_now=clock, skip_locked="", for_update="")


def put_run(tx: PlainTransaction, run_id: str, **values: Any) -> None:
    """One row of runs; ``values`` replace what a completed run of flow f has."""
    request = values.pop("request", {"prompt": f"question {run_id}", "flow_type": "f"})
    result = values.pop("result", None)
    row: dict[str, Any] = {
        "run_id": run_id,
        "tenant": "default",
        "user_name": "admin",
        "request_id": f"req-{run_id}",
        "flow": "f",
        "flow_version": "v1",
        "status": "completed",
        "request": json.dumps(request),
        "result": None if result is None else json.dumps(result),
        "created_at": 100.0,
        "queued_at": 100.0,
        "deadline_at": 200.0,
        **values,
    }
    tx.execute(
        f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )


def put_events(tx: PlainTransaction, run_id: str, *seqs: int) -> None:
    """Events of a run with these numbers."""
    tx.executemany(
        "INSERT INTO events (run_id, seq, time, type, node, attempt, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(run_id, seq, float(seq), "node.completed", "n", 1, json.dumps({"k": seq})) for seq in seqs],
    )
