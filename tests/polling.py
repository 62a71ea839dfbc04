"""Waiting for a condition with a deadline, never for luck."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from tests.machine_pace import paced


async def until(
    condition: Callable[[], bool | Awaitable[bool]], timeout_s: float, every_s: float = 0.02
) -> None:
    """Return as soon as the condition (a function, or a coroutine function) holds; TimeoutError after so long
    on the usual machine (see tests.machine_pace)."""
    async with asyncio.timeout(paced(timeout_s)):
        while True:
            answer = condition()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(every_s)
