"""One transaction on PostgreSQL, and the one dialect of SQL in its words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
_VALUES = re.compile(r"VALUES (\([^()]*\))")
_MOST_PARAMETERS = 16_384
"""A quarter of what the protocol can count in one statement."""
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

    Each statement is waited for. Rejected: one pipeline for the whole transaction, with a third of the round
    trips; the server's idle_in_transaction_session_timeout does not run while a pipeline is open, nor after
    it until the next plain statement, and a process that is stopped just there would keep its rows locked
    for as long as it is. psycopg's executemany is such a pipeline.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """``connection`` is in a transaction already."""
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Raises psycopg.Error, as its works do not catch it; the border is around the transaction."""
        return self._connection.execute(translated(sql), parameters)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Many rows in one statement, mostly in one round trip."""
        start = 0
        for count in _row_counts(len(rows), len(rows[0]) if rows else 1):
            some = rows[start : start + count]
            start += count
            self._connection.execute(_translated_for(sql, count), [value for row in some for value in row])


def _row_counts(rows: int, columns: int) -> Iterator[int]:
    """Powers of two that sum up to ``rows``, so that few texts are prepared; few enough parameters each."""
    most = 1 << (max(1, _MOST_PARAMETERS // columns).bit_length() - 1)
    while rows:
        count = min(most, 1 << (rows.bit_length() - 1))
        yield count
        rows -= count


@lru_cache(maxsize=256)
def _translated_for(sql: str, rows: int) -> bytes:
    values = _VALUES.search(sql)
    if values is None:
        raise ValueError(f"not one row of an INSERT: {sql}")
    more = f", {values.group(1)}" * (rows - 1)
    return translated(f"{sql[: values.end()]}{more}{sql[values.end() :]}")


@lru_cache(maxsize=1024)
def translated(sql: str) -> bytes:
    """The SQL that psycopg takes; each text is translated once."""
    return SqlDialect(_WORDS, "%s").render(sql.replace("%", "%%")).encode()


def transact(
    connection: psycopg.Connection[Any], works: Sequence[Work[Any]], begin: bytes = WRITE
) -> list[Any]:
    """The works' answers, committed together.

    Raises WorkFailed for the one that failed, everything undone; StoreError when the commit had been sent
    and no answer came (it may have been made).
    """
    answers: list[Any] = []
    try:
        connection.execute(begin)
        transaction = PostgresTransaction(connection)
        for work in works:
            answers.append(work(transaction))
    except Exception as error:
        _undo(connection)
        raise WorkFailed(len(answers)) from error
    try:
        _commit(connection)
    except psycopg.Error as error:
        _undo(connection)
        raise WorkFailed(len(works) - 1) from error
    return answers


def _commit(connection: psycopg.Connection[Any]) -> None:
    try:
        outcome = connection.execute(b"COMMIT").statusmessage
    except psycopg.Error as error:
        if not connection.closed:
            raise
        raise StoreError(
            "the connection was lost during a commit, which may have been made", retry_after_s=RETRY_AFTER_S
        ) from error
    if outcome != "COMMIT":
        # The server answers so when a work went on after a statement of it had failed.
        raise psycopg.InternalError("the transaction was undone: a statement of it had failed")


def _undo(connection: psycopg.Connection[Any]) -> None:
    try:
        connection.execute(b"ROLLBACK")
    except psycopg.Error:
        connection.close()
