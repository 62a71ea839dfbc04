"""The SQLite schema as an ordered list of migrations, and the code that applies what is missing."""

from __future__ import annotations

import sqlite3
import time

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            run_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            user TEXT NOT NULL,
            request_id TEXT NOT NULL,
            flow TEXT NOT NULL,
            flow_version TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
            attempt INTEGER NOT NULL DEFAULT 0,
            conversation_id TEXT,
            request TEXT NOT NULL,
            result TEXT,
            traceparent TEXT,
            created_at REAL NOT NULL,
            started_at REAL,
            finished_at REAL
        ) STRICT""",
        "CREATE INDEX runs_by_owner ON runs (tenant, user, created_at)",
        "CREATE INDEX runs_by_conversation ON runs (tenant, conversation_id, created_at)"
        " WHERE conversation_id IS NOT NULL",
        "CREATE INDEX runs_open ON runs (status) WHERE status IN ('queued', 'running')",
        """CREATE TABLE events (
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            seq INTEGER NOT NULL,
            time REAL NOT NULL,
            type TEXT NOT NULL,
            node TEXT,
            attempt INTEGER NOT NULL,
            data TEXT NOT NULL,
            PRIMARY KEY (run_id, seq)
        ) STRICT, WITHOUT ROWID""",
    ),
)
"""Migration n (from 1) brings version n-1 to n. Never edited once released, only appended to."""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply missing migrations, each in its own transaction; safe when several processes start at once.

    Raises sqlite3.DatabaseError for a database that is newer than this code.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
    )
    for version, statements in enumerate(MIGRATIONS, start=1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if schema_version(connection) < version:
                for statement in statements:
                    connection.execute(statement)
                connection.execute("INSERT INTO migrations VALUES (?, ?)", (version, time.time()))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    found = schema_version(connection)
    if found > len(MIGRATIONS):
        raise sqlite3.DatabaseError(
            f"its schema has version {found}, this program knows {len(MIGRATIONS)} at most"
        )


def schema_version(connection: sqlite3.Connection) -> int:
    """The newest applied migration; 0 for an empty database."""
    return int(connection.execute("SELECT COALESCE(MAX(version), 0) FROM migrations").fetchone()[0])
