"""A SQLite file that cannot be read any more makes room for a backup; it is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from actors.stores.sqlite_connection import BUSY_TIMEOUT_S, primary_code, translate

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PARTS = ("", "-wal", "-shm")
"""A log that is left behind would be taken for the new file's."""


def set_aside_damaged(path: Path) -> Path | None:
    """Rename a damaged database to ``<name>.damaged-<time>``; None for one that is sound or absent.

    Blocking, and it reads the whole file. Raises StoreError for one that cannot be looked at.
    """
    try:
        if not path.exists() or _is_sound(path):
            return None
        aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        for part in _PARTS:
            if (old := Path(f"{path}{part}")).exists():
                old.rename(f"{aside}{part}")
    except (sqlite3.Error, OSError) as error:
        raise translate(error, path) from error
    return aside


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in _DAMAGED:
            raise
        return False
    return tuple(found) == ("ok",)
