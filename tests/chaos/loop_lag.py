"""Figures that a machine which stands still would spoil: judged by the lag of this process's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

TICK_S = 0.01
LATE_S = 0.02
"""A refusal passes four processes: four such lags are near the limit of 0.1 s."""
LATE_SHARE = 0.02
"""Of the ticks; the figures allow 5 % of late refusals and 10 % of missing answers."""
WINDOWS = 5


async def judge_undisturbed(window: Callable[[], Awaitable[Sequence[str]]]) -> None:
    """Measure until a window has no fault, or until one has them that the machine did not disturb.

    ``window`` measures once and returns its faults in words. AssertionError tells those of an undisturbed
    window, or of all windows where each was disturbed. A product that is slow by itself makes no tick of this
    process late; one that takes all cores does so in every window, and fails too.
    """
    told: list[str] = []
    for _ in range(WINDOWS):
        async with loop_lags() as lags:
            faults = await window()
        if not faults:
            return
        share = sum(lag > LATE_S for lag in lags) / len(lags)
        told.append(f"{'; '.join(faults)} ({share:.1%} of the ticks were late)")
        print(told[-1])
        assert share > LATE_SHARE, told[-1]
    raise AssertionError(f"faults in each of {WINDOWS} windows, and the machine disturbed them all: {told}")


@asynccontextmanager
async def loop_lags() -> AsyncIterator[list[float]]:
    """By how many seconds each tick of a timer came too late, until the block ends.

    Ticks have their times, as the requests of an open loop: a loop that stands still for half a second makes
    fifty of them late, not one.
    """
    lags: list[float] = []
    ticking = asyncio.create_task(_tick(lags))
    try:
        yield lags
        # For the ticks of a loop that stood still until just now.
        await asyncio.sleep(TICK_S)
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})


async def _tick(lags: list[float]) -> None:
    due = time.monotonic() + TICK_S
    while True:
        await asyncio.sleep(due - time.monotonic())
        now = time.monotonic()
        while due <= now:
            lags.append(now - due)
            due += TICK_S
