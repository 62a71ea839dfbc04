"""A backup of a database that is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.stores.backup_file import BackupWriter, Manifest, new_backup
from actors.stores.backup_source import BackupSource
from actors.stores.database import Transaction
from actors.stores.migrations import schema_version
from actors.stores.schema import MIGRATIONS
from actors.stores.table_layout import TableLayout, common_tables, table_names
from registries.contracts.errors import StoreError

_PAGE_BYTES = 2_000_000
_FIRST_ROWS, _MAX_ROWS = 10, 2_000


def write_backup(source: BackupSource, path: Path) -> Manifest:
    """Write the state of one moment to ``path``; writers go on meanwhile. Memory holds a few megabytes.

    A schema of an older version is written as it is. Blocking. Raises as backup_file.new_backup and
    BackupSource.read, and StoreError for a schema that this program does not know; then no file is left.
    """
    with new_backup(path) as writer:
        # The file is flushed and named when the read has ended well: neither has to wait for the other.
        return source.read(lambda tx: _fill(tx, writer, source.backend))


def _fill(tx: Transaction, writer: BackupWriter, backend: str) -> Manifest:
    created_at = float(tx.execute("SELECT {now}").fetchone()[0])
    version = schema_version(tx)
    for table in _tables_of(backend, version):
        names = columns_of(tx, table.name)
        writer.add_table(table.name, names, read_pages(tx, table, names))
    return writer.finish(version, backend, created_at)


def _tables_of(backend: str, version: int) -> tuple[TableLayout, ...]:
    """Those that a database of this version has, without what belongs to one machine."""
    known = MIGRATIONS[backend]
    if version not in known:
        raise StoreError(
            f"the database's schema has version {version}, which this program does not know ({max(known)} at"
            " most); take the one that runs it",
            param="store_url",
        )
    made = table_names({number: known[number] for number in known if number <= version})
    return tuple(table for table in common_tables() if table.name in made)


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
