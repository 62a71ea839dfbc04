from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.group_commit import commit_together


class Traced(sqlite3.Connection):
    """Counts commits."""

    commits = 0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.commits += 1
        return super().execute(sql, *args)


def database() -> Traced:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=Traced)
    connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY)")
    return connection


def insert(*keys: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        for key in keys:
            connection.execute("INSERT INTO t VALUES (?)", (key,))
        return len(keys)

    return work


def rows(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT k FROM t ORDER BY k")]


def test_good_writes_share_one_commit() -> None:
    connection = database()
    assert commit_together(connection, [insert(1), insert(2, 3), insert(4)]) == [1, 2, 1]
    assert rows(connection) == [1, 2, 3, 4] and connection.commits == 1


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=3), max_size=6))
def test_each_write_is_whole_or_refused_as_if_it_came_alone(groups: list[list[int]]) -> None:
    together, alone = database(), database()
    outcomes = commit_together(together, [insert(*keys) for keys in groups])
    expected = [commit_together(alone, [insert(*keys)])[0] for keys in groups]
    assert [type(o) for o in outcomes] == [type(e) for e in expected]
    assert rows(together) == rows(alone)


def test_a_write_s_own_bug_is_its_own() -> None:
    def buggy(_: sqlite3.Connection) -> None:
        raise TypeError("not JSON")

    connection = database()
    first, second = commit_together(connection, [buggy, insert(1)])
    assert isinstance(first, TypeError) and second == 1 and rows(connection) == [1]


def test_a_locked_database_refuses_all(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (k INTEGER PRIMARY KEY)")
    holder.execute("BEGIN EXCLUSIVE")
    blocked = sqlite3.connect(path, isolation_level=None, timeout=0.01)
    outcomes = commit_together(blocked, [insert(1), insert(2)])
    assert all(isinstance(o, sqlite3.OperationalError) for o in outcomes)
    holder.execute("ROLLBACK")
    assert commit_together(blocked, [insert(1), insert(2)]) == [1, 1]
    with pytest.raises(sqlite3.ProgrammingError):
        blocked.close()
        blocked.execute("SELECT 1")
