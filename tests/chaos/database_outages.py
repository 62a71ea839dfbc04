"""The ways in which a database goes away and comes back."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from tests.own_server import OwnServer, StillRunning

HEED_S = 10.0
"""PostgreSQL kills its own processes 5 s after an immediate stop, if they are still there."""
Outage = Callable[[OwnServer], AbstractAsyncContextManager[None]]
"""The server is away in its block, and answers again after it."""


def shut_down(server: OwnServer) -> AbstractAsyncContextManager[None]:
    """Without a word to anybody (immediate mode)."""
    return _away(partial(_stop_at_once, server), server.start)


def killed(server: OwnServer) -> AbstractAsyncContextManager[None]:
    """As in a crash of its machine."""
    return _away(server.kill, server.start)


def frozen(server: OwnServer) -> AbstractAsyncContextManager[None]:
    """Connections stay open, and nothing answers."""
    return _away(server.freeze, server.thaw)


@asynccontextmanager
async def _away(leave: Callable[[], None], come_back: Callable[[], None]) -> AsyncIterator[None]:
    await asyncio.to_thread(leave)
    try:
        yield
    finally:
        await asyncio.to_thread(come_back)


def _stop_at_once(server: OwnServer) -> None:
    try:
        server.stop(signal.SIGQUIT, HEED_S)
    except StillRunning as error:
        # Seen once, with 30 s, and not again in 200 tries. What is tested is what the runtime does without
        # a database: a killed one is away as well.
        print(error)
        server.kill()


OUTAGES: tuple[Outage, ...] = (shut_down, killed, frozen)


def shuffled_outages(count: int, dice: random.Random) -> list[Outage]:
    """So many, of every kind equally often."""
    outages = [OUTAGES[number % len(OUTAGES)] for number in range(count)]
    dice.shuffle(outages)
    return outages
