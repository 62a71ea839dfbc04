from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.group_commit import commit_together
from registries.contracts.errors import StoreError, StoreFull

Work = Callable[[sqlite3.Connection], Any]


class Database:
    """A table of unique keys and a count of its commits; ``faults`` are raised by the next transactions."""

    def __init__(self, *faults: Exception | None) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY)")
        self.commits = 0
        self.faults = list(faults)

    def transact(self, works: Sequence[Work]) -> list[Any]:
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.connection.execute("BEGIN")
        try:
            answers = [work(self.connection) for work in works]
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        self.commits += 1
        return answers

    def rows(self) -> list[int]:
        return [row[0] for row in self.connection.execute("SELECT k FROM t ORDER BY k")]


def insert(*keys: int) -> Work:
    def work(connection: sqlite3.Connection) -> int:
        for key in keys:
            connection.execute("INSERT INTO t VALUES (?)", (key,))
        return len(keys)

    return work


def test_good_writes_share_one_commit() -> None:
    database = Database()
    assert commit_together(database.transact, [insert(1), insert(2, 3), insert(4)]) == [1, 2, 1]
    assert database.rows() == [1, 2, 3, 4] and database.commits == 1


def test_nothing_to_write_is_no_transaction() -> None:
    assert commit_together(Database(AssertionError("asked")).transact, []) == []


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=3), max_size=6))
def test_each_write_is_whole_or_refused_as_if_it_came_alone(groups: list[list[int]]) -> None:
    together, alone = Database(), Database()
    outcomes = commit_together(together.transact, [insert(*keys) for keys in groups])
    expected = [commit_together(alone.transact, [insert(*keys)])[0] for keys in groups]
    assert [type(o) for o in outcomes] == [type(e) for e in expected]
    assert together.rows() == alone.rows()


def test_a_write_s_own_bug_is_its_own() -> None:
    def buggy(_: sqlite3.Connection) -> None:
        raise TypeError("not JSON")

    database = Database()
    first, second = commit_together(database.transact, [buggy, insert(1)])
    assert isinstance(first, TypeError) and second == 1 and database.rows() == [1]


def test_a_database_that_is_away_refuses_all_and_is_asked_once() -> None:
    database = Database(StoreError("away"))
    outcomes = commit_together(database.transact, [insert(1), insert(2)])
    assert [str(o) for o in outcomes] == ["away", "away"]
    assert database.rows() == [] and database.commits == 0


def test_where_all_do_not_fit_some_may() -> None:
    database = Database(StoreFull("full"), StoreFull("full"))
    outcomes = commit_together(database.transact, [insert(1), insert(2)])
    assert isinstance(outcomes[0], StoreFull) and outcomes[1] == 1 and database.rows() == [2]


def test_the_end_of_the_process_is_not_an_outcome() -> None:
    def stop(_: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commit_together(Database().transact, [insert(1), stop])
