from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.stores.checkpoint_queries import insert_checkpoints, insert_writes, list_checkpoints
from actors.stores.records import CheckpointRow, Pruned, WriteRow
from actors.stores.retention import prune, take_turn
from registries.contracts.config import RetentionConfig
from tests.unit.actors.stores.plain_transaction import PlainTransaction, put_events, put_run

DAY_S = 86_400.0
POLICY = RetentionConfig(runs_days=90, checkpoints_days=7)


@pytest.fixture
def tx() -> PlainTransaction:
    transaction = PlainTransaction()
    transaction.now = 1000 * DAY_S
    return transaction


def put_states(tx: PlainTransaction, thread_id: str, *ids: str, ns: str = "") -> None:
    insert_checkpoints(tx, [CheckpointRow(thread_id, ns, i, None, "t", b"d", b"m") for i in ids])
    insert_writes(tx, [WriteRow(thread_id, ns, i, "task", 0, "c", "t", b"w") for i in ids])


def put_ended(
    tx: PlainTransaction, run_id: str, days_ago: float, status: str = "completed", **values: object
) -> None:
    put_run(tx, run_id, status=status, finished_at=tx.now - days_ago * DAY_S, **values)


def left(tx: PlainTransaction, table: str, column: str = "run_id") -> list[str]:
    return [row[0] for row in tx.execute(f"SELECT DISTINCT {column} FROM {table} ORDER BY 1").fetchall()]


def states(tx: PlainTransaction, thread_id: str) -> list[tuple[str, str, int]]:
    found = list_checkpoints(tx, thread_id, None, None, None)
    return [(row.ns, row.checkpoint_id, len(writes)) for row, writes in found]


def put_everything(tx: PlainTransaction, run_ids: Iterable[str]) -> None:
    for run_id in run_ids:
        put_events(tx, run_id, 1, 2)
        put_states(tx, run_id, "1", "2")
        tx.execute("INSERT INTO feedback VALUES (?, 'u', 0.5, NULL, 1.0)", (run_id,))
        tx.execute(
            "INSERT INTO usage VALUES (?, 'n', 1, 'completed', 'm', 'p', 1, 1, 1, 1.0, 0, NULL)", (run_id,)
        )
        tx.execute(
            "INSERT INTO idempotency_keys VALUES ('default', ?, 'd', ?, 1.0)", (f"key {run_id}", run_id)
        )


def test_an_old_run_goes_with_all_that_belongs_to_it(tx: PlainTransaction) -> None:
    put_ended(tx, "old", 91)
    put_ended(tx, "young", 1)
    put_run(tx, "open", status="waiting", created_at=0.0)
    put_everything(tx, ("old", "young", "open"))
    assert prune(tx, POLICY, 500) == Pruned(runs=1, checkpoints=2)
    for table in ("runs", "events", "feedback", "usage", "idempotency_keys"):
        assert left(tx, table) == ["open", "young"], table
    for table in ("checkpoints", "checkpoint_writes"):
        assert left(tx, table, "thread_id") == ["open", "young"]
    assert prune(tx, POLICY, 500) == Pruned()


def test_states_go_before_their_runs_but_a_failed_run_can_restart(tx: PlainTransaction) -> None:
    for status in ("completed", "failed", "cancelled"):
        put_ended(tx, status, 8, status)
        put_states(tx, status, "1", "2", "3")
    put_states(tx, "failed", "5", "6", ns="inner")
    put_ended(tx, "fresh", 6)
    put_states(tx, "fresh", "1", "2")
    put_run(tx, "open", status="running")
    put_states(tx, "open", "1", "2")
    put_states(tx, "no run", "1")
    assert prune(tx, POLICY, 500) == Pruned(runs=0, checkpoints=3 + 3 + 2 + 1)
    assert states(tx, "completed") == [] == states(tx, "cancelled")
    assert states(tx, "failed") == [("inner", "6", 1), ("", "3", 1)]
    assert len(states(tx, "fresh")) == len(states(tx, "open")) == 2 and len(states(tx, "no run")) == 1
    assert tx.execute("SELECT COUNT(*) FROM checkpoint_writes").fetchone() == (2 + 2 + 2 + 1,)
    assert prune(tx, POLICY, 500) == Pruned()


def test_a_pass_is_bounded_and_the_oldest_go_first(tx: PlainTransaction) -> None:
    for number in range(5):
        put_ended(tx, f"r{number}", 100 - number)
        put_states(tx, f"r{number}", "1")
    assert prune(tx, POLICY, 2).runs == 2
    assert left(tx, "runs") == ["r2", "r3", "r4"]
    assert [prune(tx, POLICY, 2).runs for _ in range(3)] == [2, 1, 0]


def test_zero_removed_means_that_nothing_is_left(tx: PlainTransaction) -> None:
    for number in range(7):
        put_ended(tx, f"f{number}", 30 - number, "failed")
        put_states(tx, f"f{number}", "1")
    put_ended(tx, "last", 10)
    put_states(tx, "last", "1", "2")
    assert prune(tx, POLICY, 3) == Pruned(checkpoints=2)
    assert prune(tx, POLICY, 3) == Pruned()


def test_runs_that_ended_at_the_same_moment_are_all_seen(tx: PlainTransaction) -> None:
    for number in range(5):
        put_ended(tx, f"f{number}", 30, "failed")
        put_states(tx, f"f{number}", "1", "2")
    assert prune(tx, POLICY, 2) == Pruned(checkpoints=5)


def test_a_run_that_ends_again_after_a_restart_is_seen_again(tx: PlainTransaction) -> None:
    put_ended(tx, "r", 8, "failed")
    put_states(tx, "r", "1", "2")
    assert prune(tx, POLICY, 500).checkpoints == 1
    tx.execute("UPDATE runs SET status = 'completed', finished_at = ?", (tx.now,))
    put_states(tx, "r", "3", "4")
    assert prune(tx, POLICY, 500).checkpoints == 0
    tx.now += 8 * DAY_S
    assert prune(tx, POLICY, 500).checkpoints == 3


def test_zero_days_keep_for_ever(tx: PlainTransaction) -> None:
    put_ended(tx, "r", 999)
    put_states(tx, "r", "1", "2")
    assert prune(tx, RetentionConfig(runs_days=0, checkpoints_days=0), 500) == Pruned()
    assert prune(tx, RetentionConfig(runs_days=0, checkpoints_days=1), 500) == Pruned(checkpoints=2)
    assert left(tx, "runs") == ["r"]


def test_a_version_goes_with_its_last_run_unless_it_is_the_newest(tx: PlainTransaction) -> None:
    versions = (
        ("v1", "f", 1.0),
        ("v2", "f", 2.0),
        ("v3", "f", 3.0),
        ("w1", "g", 1.0),
        ("never run", "f", 0.0),
    )
    for version, name, used_at in versions:
        tx.execute(
            "INSERT INTO flow_versions VALUES (?, ?, '{}', ?)".replace("'{}'", "'x'"),
            (version, name, used_at),
        )
    for run_id, version in (("a", "v1"), ("b", "v2"), ("c", "v3"), ("d", "w1")):
        put_ended(tx, run_id, 91, flow_version=version)
    put_ended(tx, "young", 1, flow_version="v2")
    prune(tx, POLICY, 500)
    assert left(tx, "flow_versions", "version") == ["never run", "v2", "v3", "w1"]


def test_a_turn_is_taken_once_in_a_period(tx: PlainTransaction) -> None:
    assert take_turn(tx, "prune", 60)
    assert not take_turn(tx, "prune", 60)
    assert take_turn(tx, "backup", 60)
    tx.now += 59
    assert not take_turn(tx, "prune", 60)
    tx.now += 1
    assert take_turn(tx, "prune", 60) and not take_turn(tx, "prune", 60)


def test_a_clock_that_was_set_back_does_not_end_the_turns(tx: PlainTransaction) -> None:
    assert take_turn(tx, "prune", 60)
    tx.now -= 30
    assert not take_turn(tx, "prune", 60)
    tx.now -= 31
    assert take_turn(tx, "prune", 60)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["completed", "failed", "cancelled", "running"]),
            st.integers(0, 120),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_pruning_to_the_end_leaves_exactly_what_the_policy_keeps(
    runs: list[tuple[str, int, int]], limit: int
) -> None:
    tx = PlainTransaction()
    tx.now = 1000 * DAY_S
    kept: dict[str, int] = {}
    for number, (status, days_ago, count) in enumerate(runs):
        run_id = f"r{number:02}"
        ended = status != "running"
        put_run(tx, run_id, status=status, finished_at=tx.now - (days_ago + 0.5) * DAY_S if ended else None)
        put_states(tx, run_id, *(str(i) for i in range(count)))
        if ended and days_ago >= 90:
            continue
        gone = ended and days_ago >= 7
        kept[run_id] = (min(count, 1) if status == "failed" else 0) if gone else count
    while prune(tx, POLICY, limit) != Pruned():
        pass
    assert left(tx, "runs") == sorted(kept)
    assert {run_id: len(states(tx, run_id)) for run_id in kept} == kept
    assert len(left(tx, "checkpoints", "thread_id")) == sum(1 for count in kept.values() if count)
