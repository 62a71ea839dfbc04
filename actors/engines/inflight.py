"""The calls that an engine has taken on: abort by request id, drain, count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from registries.contracts.errors import CancelledRun, CapacityError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ticket:
    """One call inside an engine."""

    request_id: str
    number: int
    aborted: bool = False
    _waiting: asyncio.Task[Any] | None = None

    @property
    def engine_id(self) -> str:
        """A name that is unique in the engine's life, even when a caller repeats its request id."""
        return f"{self.request_id}#{self.number}"

    def abort(self) -> None:
        """Mark the call and wake it where it waits; the second time does nothing."""
        if not self.aborted:
            self.aborted = True
            if self._waiting is not None:
                self._waiting.cancel()

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The awaited value; an abort ends the wait with CancelledRun, a cancellation stays what it is."""
        self._waiting = task = asyncio.current_task()
        assert task is not None
        try:
            if self.aborted and isinstance(awaitable, Coroutine):
                awaitable.close()
            self.check()
            return await awaitable
        except asyncio.CancelledError:
            if self.aborted and task.uncancel() == 0:
                self.check()
            raise
        finally:
            self._waiting = None

    def check(self) -> None:
        """Raise CancelledRun when the call was aborted."""
        if self.aborted:
            raise CancelledRun(f"call {self.request_id} was aborted", "request_id")


class InFlight:
    """Book of the running calls. Belongs to one event loop; not thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tickets: dict[str, list[Ticket]] = {}
        self._count = 0
        self._numbers = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._count

    @property
    def draining(self) -> bool:
        """Whether new calls are refused."""
        return self._draining

    @contextmanager
    def taking(self, request_id: str) -> Iterator[Ticket]:
        """Hold a place for one call; raises CapacityError when draining."""
        if self._draining:
            raise CapacityError(f"{self.name} is shutting down and takes no new calls", "model", 1.0)
        ticket = Ticket(request_id, self._numbers)
        self._numbers += 1
        self._count += 1
        self._idle.clear()
        self._tickets.setdefault(request_id, []).append(ticket)
        try:
            yield ticket
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        peers = self._tickets[ticket.request_id]
        peers.remove(ticket)
        if not peers:
            del self._tickets[ticket.request_id]
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    def abort(self, request_id: str) -> None:
        """Abort every call of that request id; unknown ids are ignored."""
        for ticket in list(self._tickets.get(request_id, ())):
            ticket.abort()

    def abort_all(self) -> None:
        """Abort whatever runs."""
        for request_id in list(self._tickets):
            self.abort(request_id)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones at most ``timeout_s`` seconds."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return
