"""Brings a database's schema up to date."""

from __future__ import annotations

from actors.stores.database import Transaction
from actors.stores.schema import Migrations
from registries.contracts.errors import StoreError

_TABLE = "CREATE TABLE IF NOT EXISTS migrations (version {int} PRIMARY KEY, applied_at {real} NOT NULL)"


def migrate(tx: Transaction, migrations: Migrations) -> int:
    """Apply what is missing, in order; the version that the database has then.

    The caller's transaction holds a lock that lets one process at a time do this: all of it is committed or
    nothing. Raises StoreError for a database that is newer than this code.
    """
    tx.execute(_TABLE)
    found = schema_version(tx)
    newest = max(migrations)
    if found > newest:
        raise StoreError(
            f"the database's schema has version {found}, this program knows {newest} at most;"
            " start the newer program, or restore a backup made by this one",
            param="store_url",
        )
    for version in sorted(migrations):
        if version <= found:
            continue
        for statement in migrations[version]:
            tx.execute(statement)
        tx.execute("INSERT INTO migrations (version, applied_at) VALUES (?, {now})", (version,))
    return newest


def schema_version(tx: Transaction) -> int:
    """The newest applied migration; 0 for an empty database."""
    return int(tx.execute("SELECT COALESCE(MAX(version), 0) FROM migrations").fetchone()[0])
