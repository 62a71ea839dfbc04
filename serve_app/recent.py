"""A value that is costly to learn, kept for a moment and learned once for everybody who asks meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Asks ``learn`` at most once every ``keep_s`` seconds; an error is not kept."""

    def __init__(self, learn: Callable[[], Awaitable[T]], keep_s: float, now: Callable[[], float]) -> None:
        self._learn = learn
        self._keep_s = keep_s
        self._now = now
        self._lock = asyncio.Lock()
        self._kept: tuple[float, T] | None = None

    async def get(self) -> T:
        """The value, at most ``keep_s`` old."""
        async with self._lock:
            if self._kept is None or self._now() - self._kept[0] >= self._keep_s:
                value = await self._learn()
                self._kept = (self._now(), value)
            return self._kept[1]
