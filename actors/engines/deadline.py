"""The remaining time of one call, as engines spend it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from registries.contracts.errors import BudgetError

T = TypeVar("T")


class Deadline:
    """A point in monotonic time; waiting past it raises BudgetError(param="deadline_s").

    Guards each wait by itself, never a stretch of a generator that yields: a timeout that spans a yield
    would cancel whatever the consumer does meanwhile.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._at = clock() + seconds

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - self._clock())

    def error(self, doing: str) -> BudgetError:
        """What is raised when the time is over; ``doing`` says what was waited for."""
        return BudgetError(
            f"deadline_s={self.seconds:.3g} passed while {doing}", "deadline_s", context={"doing": doing}
        )

    async def wait(self, awaitable: Awaitable[T], doing: str) -> T:
        """The awaited value, or BudgetError; cancels the awaitable when the time is over."""
        try:
            async with asyncio.timeout(self.remaining_s()) as timeout:
                return await awaitable
        except TimeoutError as error:
            if timeout.expired():
                raise self.error(doing) from error
            raise
