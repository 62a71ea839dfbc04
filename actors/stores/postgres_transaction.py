"""One transaction on PostgreSQL, and the one dialect of SQL in its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import psycopg

from actors.stores.database import Cursor, Work
from actors.stores.many_rows import of_many
from actors.stores.postgres_errors import RETRY_AFTER_S
from actors.stores.sql_text import SqlDialect
from actors.stores.store_faults import store_fault
from registries.contracts.errors import StoreError

T = TypeVar("T")
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
_MOST_PARAMETERS = 16_384
"""A quarter of what the protocol can count in one statement."""
WRITE = b"BEGIN"
COMMIT = b"COMMIT"
READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""One snapshot for all queries of a read."""


class WorkFailed(Exception):
    """Carries which of several works failed; the cause is what it raised."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index

    @property
    def cause(self) -> Exception:
        """What the work raised."""
        return self.__cause__ if isinstance(self.__cause__, Exception) else self


class PostgresTransaction:
    """An open transaction; see actors.stores.database.Transaction. Each statement is waited for.

    Rejected: psycopg's pipelines inside of it, of which its executemany is one. The server's
    idle_in_transaction_session_timeout does not run before their Sync, and a process that is stopped just
    there would keep its rows locked for as long as it is. PostgresBatch sends no part of what ends with a
    Sync without that one.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """``connection`` is in a transaction already."""
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Raises psycopg.Error, as its works do not catch it; the border is around the transaction."""
        return self._connection.execute(translated(sql), parameters)

    def changes_one(self, sql: str, parameters: Sequence[Any] = ()) -> bool:
        """The truth."""
        return self.execute(sql, parameters).rowcount == 1

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Many rows in one statement, mostly in one round trip."""
        for text, values in insertions(sql, rows):
            self._connection.execute(translated(text), values)


def insertions(sql: str, rows: Sequence[Sequence[T]]) -> Iterator[tuple[str, list[T]]]:
    """Statements that insert all rows, in order, with their parameters."""
    start = 0
    for count in _row_counts(len(rows), len(rows[0]) if rows else 1):
        some = rows[start : start + count]
        start += count
        yield of_many(sql, count), [value for row in some for value in row]


def _row_counts(rows: int, columns: int) -> Iterator[int]:
    """Powers of two that sum up to ``rows``, so that few texts are prepared; few enough parameters each."""
    most = 1 << (max(1, _MOST_PARAMETERS // columns).bit_length() - 1)
    while rows:
        count = min(most, 1 << (rows.bit_length() - 1))
        yield count
        rows -= count


@lru_cache(maxsize=1024)
def translated(sql: str) -> bytes:
    """The SQL that psycopg takes; each text is translated once."""
    return SqlDialect(_WORDS, "%s").render(sql.replace("%", "%%")).encode()


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """The SQL that PostgreSQL itself takes, with ``$1``, ``$2`` … for the parameters."""
    first, *others = SqlDialect(_WORDS, "?").render(sql).split("?")
    return first + "".join(f"${number}{text}" for number, text in enumerate(others, 1))


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
        undo(connection)
        raise WorkFailed(len(answers)) from error
    try:
        _commit(connection)
    except psycopg.Error as error:
        undo(connection)
        raise WorkFailed(len(works) - 1) from error
    return answers


def _commit(connection: psycopg.Connection[Any]) -> None:
    try:
        outcome = connection.execute(COMMIT).statusmessage
    except psycopg.Error as error:
        if not connection.closed:
            raise
        raise lost_in_commit(error) from error
    if outcome != "COMMIT":
        # The server answers so when a work went on after a statement of it had failed.
        raise psycopg.InternalError("the transaction was undone: a statement of it had failed")


def lost_in_commit(error: psycopg.Error) -> StoreError:
    """What is said when no answer to a commit came."""
    sentence = "the connection to the database was lost during a commit, which may have been made"
    return store_fault(sentence, error, "in a commit", retry_after_s=RETRY_AFTER_S)


def undo(connection: psycopg.Connection[Any]) -> None:
    """Roll back, or let go of a connection that cannot."""
    try:
        connection.execute(b"ROLLBACK")
    except psycopg.Error:
        connection.close()
