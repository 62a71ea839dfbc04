"""A SQLite file as a backup reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TypeVar

from actors.stores.database import Work
from actors.stores.sqlite_connection import BUSY_TIMEOUT_S, SqliteFile, SqliteTransaction, translate
from registries.contracts.errors import NotFound

T = TypeVar("T")
_OURS = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('migrations', 'runs')"
_CHECK = "check PARLEY_HOME and PARLEY_STORE_URL"


class SqliteBackupSource:
    """See backup_source.BackupSource. A connection that writes nothing, and makes no file that is missing."""

    backend = "sqlite"

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def read(self, work: Work[T]) -> T:
        """See BackupSource."""
        path = self._file.path
        if not path.is_file():
            # A backup of nothing looks like a backup.
            raise NotFound(f"there is no database {path}; {_CHECK}")
        # Not mode=ro: whoever closes last and may not write leaves the log behind.
        address = f"{path.resolve().as_uri()}?mode=rw"
        try:
            with closing(
                sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                if connection.execute(_OURS).fetchone() != (2,):
                    raise NotFound(f"the database {path} has no tables of Parley; {_CHECK}")
                return work(SqliteTransaction(connection, self._file.clock))
        except sqlite3.Error as error:
            raise translate(error, path) from error
