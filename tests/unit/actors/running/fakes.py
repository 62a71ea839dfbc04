"""A store's writing side in memory, whose commits can be held back or refused."""

from __future__ import annotations

import asyncio

from actors.stores.records import Lease, RunWrite
from registries.contracts.errors import LeaseLost, StoreError
from registries.contracts.runs import RunEvent, RunResult, Waiting


class MemoryStore:
    """``refusals``: so many commits fail with ``refusal``; ``lost``: somebody else holds the run."""

    def __init__(self) -> None:
        self.writes: list[RunWrite] = []
        self.results: list[RunResult] = []
        self.endings: list[str] = []
        self.asked = 0
        self.refusals = 0
        self.refusal = StoreError("the disk is away")
        self.lost = False
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def commits(self) -> list[list[RunEvent]]:
        return [list(write.events) for write in self.writes]

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.lost:
            raise LeaseLost("taken over")
        if self.refusals:
            self.refusals -= 1
            raise self.refusal
        self.writes.append(write)

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        await self.commit(lease, write)
        self.results.append(result)
        self.endings.append("finish")

    async def wait(self, lease: Lease, waiting: Waiting, write: RunWrite) -> None:
        await self.commit(lease, write)
        self.endings.append("wait")

    async def release(self, lease: Lease, write: RunWrite) -> None:
        await self.commit(lease, write)
        self.endings.append("release")
