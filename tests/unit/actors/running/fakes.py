"""A store in memory whose commits can be held back or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from registries.contracts.errors import StoreError
from registries.contracts.generation import Message
from registries.contracts.runs import RunEvent, RunOrder, RunResult


class MemoryStore:
    def __init__(self) -> None:
        self.commits: list[list[RunEvent]] = []
        self.results: dict[str, RunResult] = {}
        self.refusals = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.claimed = 0

    async def accept(self, order: RunOrder, flow_version: str) -> None:
        self.claimed += 0

    async def claim(self, order: RunOrder, flow_version: str) -> int | None:
        self.claimed += 1
        return 0 if self.claimed == 1 else None

    async def append_events(self, events: Sequence[RunEvent]) -> None:
        await self._commit(events)

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool:
        if run_id in self.results:
            return False
        await self._commit(events)
        self.results[run_id] = result
        return True

    async def _commit(self, events: Sequence[RunEvent]) -> None:
        await self.gate.wait()
        if self.refusals:
            self.refusals -= 1
            raise StoreError("the disk is away")
        self.commits.append(list(events))

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        return None

    async def events(self, run_id: str, tenant: str, after: int = 0) -> list[RunEvent]:
        return [e for commit in self.commits for e in commit if e.seq > after]

    async def history(self, conversation_id: str, tenant: str, limit: int) -> list[Message]:
        return []

    async def mark_interrupted(self, reason: str) -> int:
        return 0

    async def close(self) -> None:
        self.gate.set()
