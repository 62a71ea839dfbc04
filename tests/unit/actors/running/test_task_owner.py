from __future__ import annotations

import asyncio

from actors.running.task_owner import TaskOwner


async def test_a_failing_task_leaves_its_siblings_alone() -> None:
    owner = TaskOwner()
    gate = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError("mine alone")

    async def wait() -> str:
        await gate.wait()
        return "done"

    owner.start(fail(), "fails")
    sibling = owner.start(wait(), "waits")
    assert not await owner.drain(0.01)
    assert len(owner) == 1
    gate.set()
    assert await owner.drain(1)
    assert sibling.result() == "done" and len(owner) == 0


async def test_cancel_all_ends_everything() -> None:
    owner = TaskOwner()
    task = owner.start(asyncio.sleep(60), "sleeps")
    await owner.cancel_all()
    assert task.cancelled() and len(owner) == 0
    await owner.cancel_all()
