"""One attempt's view of a saver: one read, nothing after a fault, of a failed task only its error."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from flows.run_thread import RunThread
from registries.contracts.errors import StoreError

CONFIG: Any = {"configurable": {"thread_id": "run-1", "checkpoint_ns": ""}}


async def thread_of(saver: InMemorySaver) -> tuple[RunThread, Any]:
    thread = await RunThread.open(saver, "run-1")
    return thread, await thread.aput(CONFIG, empty_checkpoint(), {"step": -1}, {})


async def test_of_a_task_that_failed_only_the_error_is_kept() -> None:
    saver = InMemorySaver()
    thread, config = await thread_of(saver)
    cut_off = [("results", [{"id": "one"}]), ("__resume__", ["yes"]), ("__error__", "cancelled")]
    await thread.aput_writes(config, cut_off, "task-1")
    await thread.aput_writes(config, [("results", [{"id": "two"}]), ("branch:to:x", None)], "task-2")
    saved = await saver.aget_tuple(config)
    assert saved is not None
    assert saved.pending_writes == [
        ("task-1", "__error__", "cancelled"),
        ("task-2", "results", [{"id": "two"}]),
        ("task-2", "branch:to:x", None),
    ]


async def test_nothing_is_written_after_a_fault() -> None:
    class Down(InMemorySaver):
        down = False

        async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
            if self.down:
                raise StoreError("down")
            await super().aput_writes(*args, **kwargs)

    saver = Down()
    thread, config = await thread_of(saver)
    saver.down = True
    with pytest.raises(StoreError):
        await thread.aput_writes(config, [("results", [])], "task-1")
    saver.down = False
    with pytest.raises(StoreError):
        await thread.aput_writes(config, [("results", [])], "task-2")
    with pytest.raises(StoreError):
        await thread.aput(config, empty_checkpoint(), {"step": 0}, {})
    assert isinstance(thread.error, StoreError)
    assert len([item async for item in saver.alist(CONFIG)]) == 1


async def test_what_was_read_at_the_start_is_handed_over_once() -> None:
    saver = InMemorySaver()
    thread, _ = await thread_of(saver)
    assert thread.saved is None
    assert await thread.aget_tuple(CONFIG) is None
    assert await thread.aget_tuple(CONFIG) is not None
