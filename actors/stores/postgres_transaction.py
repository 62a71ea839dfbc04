"""One transaction on PostgreSQL, and the one dialect of SQL in its words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psycopg

from actors.stores.database import Cursor, Work
from actors.stores.postgres_errors import RETRY_AFTER_S
from actors.stores.sql_text import SqlDialect
from registries.contracts.errors import StoreError

# Of the statement, not of the transaction: a group of writes shares one, and an index can be used with it.
_CLOCK = "EXTRACT(EPOCH FROM statement_timestamp())::float8"
_WORDS: dict[str, str] = {
    "now": _CLOCK,
    "lease_now": _CLOCK,
    "for_update": "FOR UPDATE",
    "skip_locked": "FOR UPDATE SKIP LOCKED",
    "blob": "BYTEA",
    "real": "DOUBLE PRECISION",
    "int": "BIGINT",
    "json": "TEXT",
    "strict": "",
    "strict_keyed": "",
}
WRITE = b"BEGIN"
READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""One snapshot for all queries of a read."""


class WorkFailed(Exception):
    """Carries which of several works failed; the cause is what it raised."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class PostgresTransaction:
    """An open transaction; see actors.stores.database.Transaction.

    In a pipeline a statement whose answer nobody looks at costs no round trip; that it failed is then told by
    a later one.
    """

    __slots__ = ("_connection", "_pipeline")

    def __init__(self, connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline | None = None) -> None:
        """``connection`` is in a transaction already."""
        self._connection = connection
        self._pipeline = pipeline

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Raises psycopg.Error, as its works do not catch it; the border is around the transaction."""
        cursor = self._connection.execute(translated(sql), parameters)
        return cursor if self._pipeline is None else _PipelinedCursor(cursor, self._pipeline)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """All rows in one round trip."""
        if len(rows) == 1:
            # A pipeline for one is a round trip more.
            self._connection.execute(translated(sql), rows[0])
        elif rows:
            self._connection.cursor().executemany(translated(sql), rows)


class _PipelinedCursor:
    """psycopg waits for the answer when rows are fetched, but not when they are counted."""

    __slots__ = ("_cursor", "_pipeline", "fetchall", "fetchone")

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline
        self.fetchone = cursor.fetchone
        self.fetchall = cursor.fetchall

    @property
    def rowcount(self) -> int:
        if self._cursor.statusmessage is None:
            self._pipeline.sync()
        return self._cursor.rowcount


@lru_cache(maxsize=1024)
def translated(sql: str) -> bytes:
    """The SQL that psycopg takes; each text is translated once."""
    return SqlDialect(_WORDS, "%s").render(sql.replace("%", "%%")).encode()


def transact(
    connection: psycopg.Connection[Any], works: Sequence[Work[Any]], begin: bytes = WRITE
) -> list[Any]:
    """The works' answers, committed together, in as few round trips as their questions allow.

    Raises WorkFailed for the one that failed, everything undone; StoreError when the commit had been sent
    and no answer came (it may have been made).
    """
    try:
        with connection.pipeline() as pipeline:
            return _run(connection, works, begin, pipeline)
    except WorkFailed as failed:
        _undo(connection)
        if connection.closed or not isinstance(failed.__cause__, psycopg.Error):
            raise
    # Which work a statement that failed was of is known only where each statement is waited for.
    try:
        return _run(connection, works, begin, None)
    except WorkFailed:
        _undo(connection)
        raise


def _run(
    connection: psycopg.Connection[Any],
    works: Sequence[Work[Any]],
    begin: bytes,
    pipeline: psycopg.Pipeline | None,
) -> list[Any]:
    answers: list[Any] = []
    try:
        connection.execute(begin)
        transaction = PostgresTransaction(connection, pipeline)
        for work in works:
            answers.append(work(transaction))
    except Exception as error:
        raise WorkFailed(len(answers)) from error
    try:
        commit = connection.execute(b"COMMIT")
        if pipeline is not None:
            pipeline.sync()
    except psycopg.Error as error:
        if not connection.closed:
            raise WorkFailed(len(works) - 1) from error
        raise StoreError(
            "the connection was lost during a commit, which may have been made", retry_after_s=RETRY_AFTER_S
        ) from error
    if commit.statusmessage != "COMMIT":
        # The server answers so when a work went on after a statement of it had failed.
        raise WorkFailed(len(works) - 1) from StoreError("the database undid a transaction that had failed")
    return answers


def _undo(connection: psycopg.Connection[Any]) -> None:
    try:
        connection.execute(b"ROLLBACK")
    except psycopg.Error:
        connection.close()
