"""Many rows as few statements, without a pipeline."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.stores.postgres_transaction import PostgresTransaction


class Recorder:
    """Takes statements as a connection does."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[Any]]] = []

    def execute(self, sql: bytes, parameters: Any) -> None:
        self.taken.append((sql.decode(), list(parameters)))


def taken(sql: str, rows: list[tuple[Any, ...]]) -> list[tuple[str, list[Any]]]:
    recorder = Recorder()
    PostgresTransaction(recorder).executemany(sql, rows)  # type: ignore[arg-type]
    return recorder.taken


def test_what_follows_the_values_stays_behind_them() -> None:
    sql = "INSERT INTO t (a, b) VALUES (?, {now}) ON CONFLICT (a) DO NOTHING"
    (first, second) = taken(sql, [(1,), (2,), (3,)])
    now = "EXTRACT(EPOCH FROM statement_timestamp())::float8"
    assert first == (
        f"INSERT INTO t (a, b) VALUES (%s, {now}), (%s, {now}) ON CONFLICT (a) DO NOTHING",
        [1, 2],
    )
    assert second == (f"INSERT INTO t (a, b) VALUES (%s, {now}) ON CONFLICT (a) DO NOTHING", [3])


@given(st.integers(0, 3000), st.integers(1, 12))
def test_every_row_goes_once_and_in_order_in_statements_that_the_protocol_can_take(
    rows: int, columns: int
) -> None:
    sql = f"INSERT INTO t VALUES ({', '.join('?' * columns)})"
    statements = taken(sql, [tuple(range(n, n + columns)) for n in range(rows)])
    sent = [value for _, parameters in statements for value in parameters]
    assert sent == [value for n in range(rows) for value in range(n, n + columns)]
    for text, parameters in statements:
        assert text.count("%s") == len(parameters) <= 16_384
        count = len(parameters) // columns
        assert count & (count - 1) == 0
