"""A backup of a database that is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.stores.backup_file import Manifest, new_backup
from actors.stores.database import Database, Transaction
from actors.stores.migrations import schema_version
from actors.stores.table_layout import TableLayout, common_tables

_PAGE_BYTES = 2_000_000
_FIRST_ROWS, _MAX_ROWS = 10, 2_000


async def write_backup(database: Database, path: Path) -> Manifest:
    """Write the state of one moment to ``path``; writers go on meanwhile. Memory holds a few megabytes.

    Raises as backup_file.new_backup, and StoreError when the database cannot be read.
    """
    # From the beginning again where the connection is lost and the read is repeated: the file is made inside.
    return await database.read(lambda tx: _write(tx, database.backend, path))


def _write(tx: Transaction, backend: str, path: Path) -> Manifest:
    with new_backup(path) as writer:
        created_at = float(tx.execute("SELECT {now}").fetchone()[0])
        for table in common_tables():
            names = columns_of(tx, table.name)
            writer.add_table(table.name, names, read_pages(tx, table, names))
        return writer.finish(schema_version(tx), backend, created_at)


def columns_of(tx: Transaction, table: str) -> list[str]:
    """The names of a table's columns."""
    return [column[0] for column in tx.execute(f"SELECT * FROM {table} LIMIT 0").description]


def read_pages(
    tx: Transaction, table: TableLayout, columns: Sequence[str]
) -> Iterator[Sequence[Sequence[Any]]]:
    """All rows by key. A page follows a key, not a cursor: no driver then holds the whole table."""
    positions = [columns.index(name) for name in table.key]
    key, marks = ", ".join(table.key), ", ".join("?" * len(table.key))
    select = f"SELECT {', '.join(columns)} FROM {table.name}"
    last: list[Any] = []
    count = _FIRST_ROWS
    while True:
        after = f" WHERE ({key}) > ({marks})" if last else ""
        page = tx.execute(f"{select}{after} ORDER BY {key} LIMIT ?", [*last, count]).fetchall()
        if page:
            yield page
        if len(page) < count:
            return
        last = [page[-1][position] for position in positions]
        size = sum(len(value) for row in page for value in row if isinstance(value, str | bytes))
        count = max(1, min(_MAX_ROWS, count * _PAGE_BYTES // max(size, 1)))
