"""What is collected for one message, and in which order it goes; without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.database import Transaction, Work
from actors.stores.postgres_batch import MOST_BYTES, PostgresBatch
from actors.stores.postgres_pipeline import SEND_BYTES, wire_bytes, wire_value
from registries.contracts.errors import Conflict

CHANGE = "UPDATE t SET n = ? WHERE id = ?"
ROW = "INSERT INTO rows (id, data) VALUES (?, ?)"


def change(name: str, answer: Any = None, rows: int = 1, data: str = "d") -> Work[Any]:
    def work(tx: Transaction) -> Any:
        assert tx.changes_one(CHANGE, (1, name))
        tx.executemany(ROW, [(f"{name}.{number}", data) for number in range(rows)])
        return answer

    return work


def ask(tx: Transaction) -> Any:
    return tx.execute("SELECT 1").fetchone()


def refuse(tx: Transaction) -> None:
    tx.changes_one(CHANGE, (1, "refused"))
    raise Conflict("no")


def texts(batch: PostgresBatch) -> list[str]:
    return [statement.text for statement in batch.statements()]


def test_changes_come_first_in_order_then_the_rows_of_all_together() -> None:
    batch = PostgresBatch([change("a", 1), change("b", 2, rows=0), change("c", 3)])
    assert len(batch) == 3 and batch.answers == [1, 2, 3]
    begin, *changes, rows, commit = batch.statements()
    assert (begin.text, commit.text) == ("BEGIN", "COMMIT")
    assert [statement.values[1] for statement in changes] == [b"a", b"b", b"c"]
    assert rows.text == "INSERT INTO rows (id, data) VALUES ($1, $2), ($3, $4)"
    assert rows.values == [b"a.0", b"d", b"c.0", b"d"]


def test_a_change_that_is_taken_for_granted_undoes_the_batch_when_it_is_not_so() -> None:
    text = texts(PostgresBatch([change("a")]))[1]
    assert text.startswith("WITH changed AS (UPDATE t SET n = $1 WHERE id = $2 RETURNING 1) SELECT 1 / COUNT")


@pytest.mark.parametrize("other", [ask, refuse])
def test_a_work_that_asks_or_raises_leaves_nothing_in_the_batch(other: Work[Any]) -> None:
    batch = PostgresBatch([change("a", 1), other, change("c", 3)])
    assert len(batch) == 1 and batch.answers == [1]
    assert not any(b"refused" in statement.values for statement in batch.statements())
    assert not PostgresBatch([other, change("a")])


@given(st.lists(st.integers(0, MOST_BYTES * 2), min_size=1, max_size=8))
def test_one_batch_is_bounded_and_every_work_has_its_turn(sizes: list[int]) -> None:
    works = [change(str(number), number, data="x" * size) for number, size in enumerate(sizes)]
    left, answers, alone = works, [], 0
    while left:
        batch = PostgresBatch(left)
        assert sum(wire_bytes(statement.values) for statement in batch.statements()) <= MOST_BYTES
        answers += batch.answers or [int(len(works) - len(left))]
        alone += not batch
        left = left[max(1, len(batch)) :]
    assert answers == list(range(len(sizes)))
    assert alone == sum(
        wire_bytes([b"1", b"%d" % n, b"%d.0" % n, b"x" * size]) > MOST_BYTES for n, size in enumerate(sizes)
    )


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=12))
def test_rows_of_one_insert_go_in_one_piece_unless_one_alone_is_too_large(sizes: list[int]) -> None:
    batch = PostgresBatch(
        [lambda tx: tx.executemany(ROW, [(str(n), "x" * size) for n, size in enumerate(sizes)])]
    )
    inserts = [statement for statement in batch.statements() if statement.text.startswith("INSERT")]
    assert all(len(one.values) == 2 or wire_bytes(one.values) < SEND_BYTES - 500 for one in inserts)
    if batch:
        assert [len(value or b"") for one in inserts for value in one.values[1::2]] == sizes


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, None),
        ("ä\x00", "ä\ufffd".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (-(2**62), b"-4611686018427387904"),
        (0.1 + 0.2, b"0.30000000000000004"),
    ],
)
def test_values_go_as_the_server_reads_them(value: Any, wire: bytes | None) -> None:
    assert wire_value(value) == wire


@pytest.mark.parametrize("value", [True, (1,), "\ud800"])
def test_what_the_server_would_not_read_is_no_part_of_a_batch(value: Any) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        wire_value(value)
    write: Callable[[Transaction], bool] = lambda tx: tx.changes_one(CHANGE, (value, "a"))  # noqa: E731
    assert not PostgresBatch([write])
