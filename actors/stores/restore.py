"""A backup brought back into a database, of the same kind or another."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.stores.backup import columns_of
from actors.stores.backup_file import BackupReader, Manifest, open_backup
from actors.stores.database import Database, Transaction
from actors.stores.migrations import migrate, schema_version
from actors.stores.schema import MIGRATIONS, Migrations
from actors.stores.table_layout import common_tables, table_names
from registries.contracts.errors import Conflict, ValidationError

_HELD = "SELECT COUNT(*) FROM runs WHERE status = 'running' AND lease_until > {lease_now}"
# A reading of the clock of the database that it came from. Below every reading: whoever starts takes it over.
_FREE_LEASES = (
    "UPDATE runs SET lease_until = -1e308 WHERE status = 'running'",
    "UPDATE kept_calls SET lease_until = -1e308 WHERE answer IS NULL",
)
# A reading of that clock too, and time went on since. What a run had left at the backup it has left again.
_GIVE_BACK_TIME = (
    "UPDATE runs SET deadline_at = deadline_at + ({now} - ?) WHERE status IN ('queued', 'running')"
)


async def restore_backup(
    database: Database, path: Path, replace: bool = False, migrations: Migrations | None = None
) -> Manifest:
    """Put what the backup holds into the database, in one transaction: all of it, or nothing changes.

    The file is checked first, from end to end. A backup of an older schema is loaded into tables of its time
    and migrated. Unfinished runs are free, with the time that they had left. ``replace`` gives up what is
    there. Raises ValidationError for a file that cannot be used, Conflict for a database that has rows, or
    whose runs some process holds right now, StoreError.
    """
    known = migrations or MIGRATIONS[database.backend]
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, _restore, database, path, replace, known)


def _restore(database: Database, path: Path, replace: bool, migrations: Migrations) -> Manifest:
    with open_backup(path) as backup:
        version, newest = backup.manifest.schema_version, max(migrations)
        if version > newest:
            raise ValidationError(
                f"{path} has schema version {version}, this program knows {newest} at most; take a newer"
                " program",
                param="file",
            )
        if version not in migrations:
            raise ValidationError(
                f"{path} has schema version {version}, which a {database.backend} database never had",
                param="file",
            )
        database.load(lambda tx: _load(tx, backup, replace, migrations))
        return backup.manifest


def _load(tx: Transaction, backup: BackupReader, replace: bool, migrations: Migrations) -> None:
    if tx.execute(_HELD).fetchone()[0]:
        raise Conflict("runs of this database are being run right now; stop their runtime: parley down")
    empty_tables(tx, replace)
    version = backup.manifest.schema_version
    older = version < schema_version(tx)
    if older:
        _go_back(tx, migrations, version)
    for part in backup.manifest.parts:
        _load_table(tx, backup, part.table)
        count = tx.execute(f"SELECT COUNT(*) FROM {part.table}").fetchone()[0]
        if count != part.rows:
            raise ValidationError(f"{count} of {part.rows} rows of {part.table} arrived", param="file")
    # Before the migrations: version 1 has no deadlines, and gets them as they are at the restore.
    if "deadline_at" in columns_of(tx, "runs"):
        tx.execute(_GIVE_BACK_TIME, (backup.manifest.created_at,))
    if older:
        migrate(tx, migrations)
    for statement in _FREE_LEASES:
        tx.execute(statement)


def empty_tables(tx: Transaction, replace: bool) -> None:
    """Remove every row, or raise Conflict when there are some and ``replace`` does not say so."""
    tables = [table.name for table in common_tables()]
    # Turns are no data: whoever opens the runtime takes one.
    filled = [
        name for name in tables if name != "turns" and tx.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()
    ]
    if filled and not replace:
        raise Conflict(
            f"the database is not empty (it has {', '.join(filled)}); --replace gives up what it holds",
            param="replace",
        )
    for name in reversed(tables):
        tx.execute(f"DELETE FROM {name}")


def _go_back(tx: Transaction, migrations: Migrations, version: int) -> None:
    """The empty tables as they were at that version."""
    for name in reversed(table_names(migrations)):
        tx.execute(f"DROP TABLE {name}")
    tx.execute("DELETE FROM migrations")
    migrate(tx, {number: statements for number, statements in migrations.items() if number <= version})


def _load_table(tx: Transaction, backup: BackupReader, table: str) -> None:
    known = {layout.name for layout in common_tables()}
    columns = backup.columns(table)
    if table not in known or set(columns) != set(columns_of(tx, table)):
        raise ValidationError(
            f"table {table} has other columns here than in the backup, though both say schema version"
            f" {backup.manifest.schema_version}",
            param="file",
        )
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    for page in backup.pages(table):
        tx.executemany(insert, page)
