from __future__ import annotations

import sqlite3

import pytest

from actors.stores.machine_clock import MachineClock
from actors.stores.migrations import migrate, schema_version
from actors.stores.schema import MIGRATIONS, Migrations
from actors.stores.sqlite_connection import SqliteTransaction
from registries.contracts.errors import StoreError

STEPS: Migrations = {
    1: ("CREATE TABLE a (x {int})",),
    2: ("CREATE TABLE b (x {int})", "INSERT INTO b SELECT x FROM a", "DROP TABLE a"),
}


def transaction() -> SqliteTransaction:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    return SqliteTransaction(connection, MachineClock(wall=lambda: 7.0))


def test_what_is_missing_is_applied_in_order() -> None:
    tx = transaction()
    assert migrate(tx, {1: STEPS[1]}) == 1
    tx.execute("INSERT INTO a VALUES (5)")
    assert migrate(tx, STEPS) == 2
    assert migrate(tx, STEPS) == 2 == schema_version(tx)
    assert tx.execute("SELECT x FROM b").fetchall() == [(5,)]
    assert tx.execute("SELECT version, applied_at FROM migrations").fetchall() == [(1, 7.0), (2, 7.0)]


def test_a_newer_database_is_left_alone() -> None:
    tx = transaction()
    migrate(tx, {**STEPS, 3: ("CREATE TABLE c (x {int})",)})
    with pytest.raises(StoreError, match=r"version 3.* 2 at most"):
        migrate(tx, STEPS)


def test_a_backend_that_lacks_the_first_versions_begins_later() -> None:
    tx = transaction()
    assert migrate(tx, MIGRATIONS["postgresql"]) == max(MIGRATIONS["sqlite"])
    assert tx.execute("SELECT version FROM migrations").fetchall() == [(2,), (3,)]
