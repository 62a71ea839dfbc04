"""A stream under a total time limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")

IDLE_S = 60.0
"""Longest silence between two items: streams that hang without an end are a common provider fault."""


async def timed_stream(
    source: AsyncIterator[T],
    timeout_s: float,
    clock: Callable[[], float],
    idle_s: float = IDLE_S,
) -> AsyncGenerator[T, None]:
    """Pass items on; TimeoutError when all takes longer than ``timeout_s`` or a silence than ``idle_s``.

    The clock runs while the consumer is busy too: a deadline is a promise about the whole answer. Closing
    this iterator closes the source.
    """
    until = clock() + timeout_s
    iterator = aiter(source)
    try:
        while True:
            left_s = until - clock()
            if left_s <= 0:
                raise TimeoutError
            try:
                async with asyncio.timeout(min(left_s, idle_s)):
                    item = await anext(iterator)
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
