"""One client's view of a keyed model call."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from registries.contracts.errors import BudgetError
from serve_app.live_call import LiveCall


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """The last item: a GenerationResult as JSON."""

    json: str


Join = Callable[[float], tuple[LiveCall, bool]]
"""The call that is under way, or one begun for this client (True) that ends by then (the loop's clock)."""


class CallReader:
    """What the call says, then its answer. Going away leaves the call alone.

    A client whose request repeats one that then fails asks anew, unless it was told some of it already: with
    several of them one has the call made, and the others wait for that one.
    """

    def __init__(self, join: Join, deadline_s: float) -> None:
        self.replayed = False
        """Whether the answer, as far as is known, is that of a request that had come before."""
        self._join = join
        self._deadline_s = deadline_s
        self._ends_at = asyncio.get_running_loop().time() + deadline_s

    async def answer(self) -> str:
        """The GenerationResult as JSON. Raises what the call raised, and BudgetError (see ``items``)."""
        async with aclosing(self.items()) as items:
            async for item in items:
                if isinstance(item, WholeAnswer):
                    return item.json
        raise AssertionError("unreachable: the last item is the answer, or an error was raised")

    async def items(self) -> AsyncGenerator[str | WholeAnswer, None]:
        """Pieces of the text, where the call is streamed, then the answer.

        Raises BudgetError (param deadline_s) when the request that came first takes longer than this one may.
        """
        while True:
            live, is_own = self._join(self._ends_at)
            seen = 0
            try:
                while True:
                    news = live.news()
                    self.replayed = live.is_elsewhere or not is_own
                    text, seen = live.since(seen)
                    if text:
                        yield text
                    elif live.is_over:
                        break
                    else:
                        await self._wait(news, is_own)
            finally:
                live.clients -= 1
            if live.answer is not None:
                yield WholeAnswer(live.answer)
                return
            assert live.error is not None
            if live.is_everyones:
                # Raised by others too, and each adds a traceback of its own.
                raise copy.copy(live.error)
            if is_own or seen:
                raise live.error

    async def _wait(self, news: asyncio.Event, is_own: bool) -> None:
        """A call that was begun for this client keeps to its deadline by itself."""
        try:
            async with asyncio.timeout_at(None if is_own else self._ends_at):
                await news.wait()
        except TimeoutError as error:
            raise BudgetError(
                f"the request that first came with this Idempotency-Key has no answer after"
                f" {self._deadline_s:g} s; ask again",
                param="deadline_s",
            ) from error
