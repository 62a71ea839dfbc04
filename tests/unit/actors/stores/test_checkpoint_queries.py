from __future__ import annotations

import pytest

from actors.stores.checkpoint_queries import (
    drop_checkpoints,
    drop_threads,
    get_checkpoint,
    insert_checkpoints,
    insert_writes,
    list_checkpoints,
)
from actors.stores.records import CheckpointRow, WriteRow
from tests.unit.actors.stores.plain_transaction import PlainTransaction


@pytest.fixture
def tx() -> PlainTransaction:
    return PlainTransaction()


def state(checkpoint_id: str, thread_id: str = "t", ns: str = "", data: bytes = b"\x00d") -> CheckpointRow:
    return CheckpointRow(thread_id, ns, checkpoint_id, None, "msgpack", data, b"{}")


def write(
    task_id: str, idx: int, data: bytes = b"w", checkpoint_id: str = "1", thread_id: str = "t"
) -> WriteRow:
    return WriteRow(thread_id, "", checkpoint_id, task_id, idx, "c", "msgpack", data, "path")


def test_the_newest_or_a_named_one_with_its_writes(tx: PlainTransaction) -> None:
    insert_checkpoints(tx, [state("2"), state("1"), state("9", ns="inner"), state("8", thread_id="other")])
    writes = [write("b", 0), write("a", 1), write("a", 0)]
    insert_writes(tx, [*writes, write("a", 0, thread_id="other")])
    assert get_checkpoint(tx, "t", "", None) == (state("2"), [])
    assert get_checkpoint(tx, "t", "", "1") == (state("1"), [writes[2], writes[1], writes[0]])
    assert get_checkpoint(tx, "t", "", "3") is None
    assert get_checkpoint(tx, "nobody", "", None) is None


def test_a_checkpoint_that_exists_is_replaced(tx: PlainTransaction) -> None:
    insert_checkpoints(tx, [state("1")])
    insert_checkpoints(tx, [state("1", data=b"new")])
    assert list_checkpoints(tx, "t", None, None, None) == [(state("1", data=b"new"), [])]


def test_the_first_write_stays_unless_its_index_is_negative(tx: PlainTransaction) -> None:
    insert_checkpoints(tx, [state("1")])
    insert_writes(tx, [write("a", 0, b"first"), write("a", -1, b"first")])
    insert_writes(tx, [write("a", 0, b"second"), write("a", -1, b"second")])
    found = get_checkpoint(tx, "t", "", "1")
    assert found is not None
    assert [(w.idx, w.data) for w in found[1]] == [(-1, b"second"), (0, b"first")]


def test_a_list_is_newest_first_and_bounded(tx: PlainTransaction) -> None:
    insert_checkpoints(tx, [state("1"), state("2"), state("3"), state("4", ns="inner"), state("5", "other")])
    insert_writes(tx, [write("a", 0), write("a", 0, checkpoint_id="3")])

    def ids(*args: object) -> list[tuple[str, int]]:
        return [(row.checkpoint_id, len(writes)) for row, writes in list_checkpoints(tx, *args)]  # type: ignore[arg-type]

    assert ids("t", "", None, None) == [("3", 1), ("2", 0), ("1", 1)]
    assert ids("t", "", "3", 1) == [("2", 0)]
    assert ids("t", None, None, 2) == [("4", 0), ("3", 1)]
    assert ids(None, None, None, None) == [("5", 0), ("4", 0), ("3", 1), ("2", 0), ("1", 1)]


def test_more_checkpoints_than_one_query_takes_keep_their_writes(tx: PlainTransaction) -> None:
    names = [f"{number:05}" for number in range(1100)]
    insert_checkpoints(tx, [state(name) for name in names])
    insert_writes(tx, [write("a", 0, checkpoint_id=name) for name in names])
    found = list_checkpoints(tx, "t", "", None, None)
    assert [row.checkpoint_id for row, _ in found] == names[::-1]
    assert all([w.checkpoint_id for w in writes] == [row.checkpoint_id] for row, writes in found)
    drop_checkpoints(tx, "t", names[1:])
    assert [row.checkpoint_id for row, _ in list_checkpoints(tx, "t", "", None, None)] == names[:1]


def test_what_is_dropped_takes_its_writes_along(tx: PlainTransaction) -> None:
    insert_checkpoints(tx, [state("1"), state("1", ns="inner"), state("2"), state("1", "other")])
    insert_writes(tx, [write("a", 0), write("a", 0, checkpoint_id="2"), write("a", 0, thread_id="other")])
    drop_checkpoints(tx, "t", ["1"])
    assert [row.checkpoint_id for row, _ in list_checkpoints(tx, "t", None, None, None)] == ["2"]
    assert drop_threads(tx, ["t", "nobody"]) == 1
    assert list_checkpoints(tx, "t", None, None, None) == []
    assert [len(writes) for _, writes in list_checkpoints(tx, "other", None, None, None)] == [1]
    assert tx.execute("SELECT COUNT(*) FROM checkpoint_writes").fetchone() == (1,)
