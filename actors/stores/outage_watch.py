"""Tells a database that is away from one that is slow, while somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from registries.contracts.errors import StoreError

T = TypeVar("T")
PATIENCE_S = 1.0
"""Commits take milliseconds; who has waited for so long wants to know."""
_ANSWER_S = 1.0
_AGAIN_S = 0.2


class OutageWatch:
    """Whoever waits too long makes it ask the server, by a connection of its own, until that answers.

    While it does not, ``outage`` is called after every try. A server that is frozen (or a network that drops
    everything) closes no connection, so that nothing else would tell. Belongs to one event loop.
    """

    def __init__(self, ask: Callable[[], None], outage: Callable[[], None]) -> None:
        """``ask`` is blocking and raises StoreError."""
        self._ask = ask
        self._outage = outage
        self._asking: asyncio.Task[None] | None = None

    async def over(self, answer: Awaitable[T]) -> T:
        """Await it, watched."""
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._suspect)
        try:
            return await answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _suspect(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_until_it_answers())

    async def _ask_until_it_answers(self) -> None:
        while True:
            try:
                # The thread ends by the connection's own timeout, a little later.
                await asyncio.wait_for(asyncio.to_thread(self._ask), _ANSWER_S)
                return
            except (TimeoutError, StoreError):
                self._outage()
            await asyncio.sleep(_AGAIN_S)
