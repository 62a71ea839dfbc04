"""One connection to a SQLite file: how it is opened, how its transactions speak, what its faults mean."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from actors.stores.machine_clock import MachineClock
from actors.stores.many_rows import of_many
from actors.stores.schema import SQLITE_TYPES
from actors.stores.sql_text import ClockParameters, SqlDialect
from actors.stores.store_faults import FULL, UNUSABLE, for_operator, refused_row, store_fault
from registries.contracts.errors import Conflict, ParleyError, StoreError, StoreFull

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
"""How long a write waits for other processes; commits take milliseconds, a slow disk under load more."""
_STATEMENTS = 256
_CACHE_KIB = 8_192
_ROWS = 16
"""Of one INSERT: each statement takes the interpreter's lock anew, slow in a busy process."""
_WAL_PAGES = 4_000
"""Pages (16 MB) in the log before they are copied into the file: that flushes twice, so it is done seldom."""
_WORDS = {**SQLITE_TYPES, "for_update": "", "skip_locked": "", "now": "?", "lease_now": "?"}


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """Where a database is and how it is opened. ``max_page_count`` bounds the file (pages of 4096 bytes)."""

    path: Path
    max_page_count: int | None = None
    clock: MachineClock = field(default_factory=MachineClock)


class SqliteTransaction:
    """See database.Transaction; ``{now}`` and ``{lease_now}`` are the clocks' readings at each statement."""

    def __init__(self, connection: sqlite3.Connection, clock: MachineClock) -> None:
        self._connection = connection
        self._clocks: dict[str, Callable[[], float]] = {"now": clock.wall, "lease_now": clock.lease}
        self._texts = ClockParameters(SqlDialect(_WORDS, "?"))

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        text, bound = self._texts.bind(sql, tuple(parameters), self._clocks)
        return self._connection.execute(text, bound)

    def changes_one(self, sql: str, parameters: Sequence[Any] = ()) -> bool:
        return self.execute(sql, parameters).rowcount == 1

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            self.execute(of_many(sql, len(some)), [value for row in some for value in row])


class SqliteConnection:
    """Opened when it is first used, and again after a fault that may be the connection's. For one thread."""

    def __init__(self, file: SqliteFile, read_only: bool = False) -> None:
        self._file = file
        self._read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._transaction: SqliteTransaction | None = None

    def transact(self, works: Sequence[Callable[[Any], Any]]) -> list[Any]:
        """All works in one transaction, committed; or nothing done and an error of our tree or the work's."""
        try:
            connection, transaction = self._open()
            connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
            try:
                answers = [work(transaction) for work in works]
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return answers
        except (sqlite3.Error, OSError) as error:
            if _may_be_the_connection(error):
                self.close()
            raise client_error(error, self._file.path) from error

    def close(self) -> None:
        """Idempotent; the next transaction opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._transaction = None

    def _open(self) -> tuple[sqlite3.Connection, SqliteTransaction]:
        if self._connection is None or self._transaction is None:
            self._connection = _connect(self._file, self._read_only)
            self._transaction = SqliteTransaction(self._connection, self._file.clock)
        return self._connection, self._transaction


def _connect(file: SqliteFile, read_only: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file.path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        if file.max_page_count is not None:
            connection.execute(f"PRAGMA max_page_count = {file.max_page_count:d}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def client_error(error: sqlite3.Error | OSError, path: Path) -> StoreError | Conflict:
    """What a fault of SQLite or of the file system is in our tree, in words that a client may read."""
    if isinstance(error, sqlite3.IntegrityError):
        return refused_row(error)
    full = primary_code(error) == sqlite3.SQLITE_FULL
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return store_fault(FULL, error, str(path), StoreFull, retry_after_s=5.0)
    return store_fault(UNUSABLE, error, str(path))


def translate(error: sqlite3.Error | OSError, path: Path) -> ParleyError:
    """The same in words for operators: with the path, and what SQLite said."""
    return for_operator(client_error(error, path))


def _may_be_the_connection(error: sqlite3.Error | OSError) -> bool:
    # BUSY, FULL and a work's own mistakes leave a connection as good as it was.
    suspects = (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    )
    return primary_code(error) in suspects


def primary_code(error: BaseException) -> int:
    """SQLite's result code without its extension; 0 for what is no error of SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
