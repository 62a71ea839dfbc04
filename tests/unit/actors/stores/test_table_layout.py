"""Tables and keys, as the schema's own statements name them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from actors.stores.open_database import open_database
from actors.stores.schema import MIGRATIONS
from actors.stores.table_layout import common_tables, table_names
from registries.contracts.config import RuntimeConfig


@pytest.fixture
async def connection(tmp_path: Path) -> sqlite3.Connection:
    await (await open_database(RuntimeConfig(home=str(tmp_path)))).close()
    return sqlite3.connect(tmp_path / "parley.db")


def test_every_table_of_a_real_database_is_known(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    real = {row[0] for row in rows if not row[0].startswith("sqlite_")} - {"migrations"}
    assert set(table_names(MIGRATIONS["sqlite"])) == real
    assert {table.name for table in common_tables()} == real - {"lease_clock"}


def test_keys_are_those_of_the_database(connection: sqlite3.Connection) -> None:
    for table in common_tables():
        columns = connection.execute(f"PRAGMA table_info({table.name})").fetchall()
        key = sorted((column[5], column[1]) for column in columns if column[5])
        assert table.key == tuple(name for _, name in key)


def test_what_is_referred_to_comes_first(connection: sqlite3.Connection) -> None:
    names = [table.name for table in common_tables()]
    for position, name in enumerate(names):
        for key in connection.execute(f"PRAGMA foreign_key_list({name})").fetchall():
            assert names.index(key[2]) < position
