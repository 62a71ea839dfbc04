"""An INSERT of one row, as one of many."""

from __future__ import annotations

import pytest

from actors.stores.many_rows import of_many


def test_what_follows_the_values_stays_behind_them() -> None:
    sql = "INSERT INTO t (a, b) VALUES (?, {now}) ON CONFLICT (a) DO NOTHING"
    assert of_many(sql, 1) == sql
    assert of_many(sql, 2) == "INSERT INTO t (a, b) VALUES (?, {now}), (?, {now}) ON CONFLICT (a) DO NOTHING"


def test_only_an_insert_of_one_row_can_be_one_of_many() -> None:
    with pytest.raises(ValueError, match="not one row"):
        of_many("UPDATE t SET a = ?", 2)
