"""Writes in line for one thread: what waits together is committed together."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from actors.stores.database import Work
from actors.stores.store_faults import broken_write

T = TypeVar("T")
Commit = Callable[[Sequence[Work[Any]]], list[Any]]
"""Blocking; each work's answer, or the exception that refused it, in order."""

GROUP = 64
"""Works in one commit: more would hold their rows' locks longer than the commit costs."""


class WriteLane:
    """Belongs to one event loop. Works that nobody waits for any more when their turn comes are not begun."""

    def __init__(self, commit: Commit, name: str) -> None:
        self._commit = commit
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[str, Work[Any], asyncio.Future[Any]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def write(self, work: Work[T], key: str) -> T:
        """Its answer, committed; raises what refused it. Works of one ``key`` keep their order."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append((key, work, answer))
        if self._drain is None or self._drain.done():
            self._drain = loop.create_task(self._write_waiting(), name=self._name)
        return await answer

    def refuse_waiting(self, error: Exception) -> None:
        """Fail what has not begun."""
        waiting, self._waiting = self._waiting, []
        for _, _, answer in waiting:
            if not answer.done():
                answer.set_exception(error)

    async def close(self) -> None:
        """After what was handed in."""
        if self._drain is not None:
            await self._drain
        await asyncio.to_thread(self._thread.shutdown)

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            group = sorted((entry for entry in taken if not entry[2].done()), key=lambda entry: entry[0])
            if not group:
                continue
            works = [work for _, work, _ in group]
            outcomes = await loop.run_in_executor(self._thread, self._outcomes, works)
            for (_, _, answer), outcome in zip(group, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)

    def _outcomes(self, works: Sequence[Work[Any]]) -> list[Any]:
        """One for each work, whatever happens."""
        try:
            outcomes = self._commit(works)
            if len(outcomes) != len(works):
                raise AssertionError(f"{len(outcomes)} outcomes of {len(works)} works")
            return outcomes
        except BaseException as error:  # noqa: BLE001 - whoever waits must not wait for ever
            failed = broken_write(error)
            return [copy.copy(failed) for _ in works]
