"""A batch can wait: calls that were never taken on, or whose process died, are made again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from registries.contracts.errors import CapacityError, InternalError

T = TypeVar("T")


class LostCall(InternalError):
    """The process that worked on the call is gone; nothing of it will come. Asking again is safe."""


@dataclass(frozen=True)
class Patience:
    """Waits out full queues and restarts, nothing else: provider faults were retried by the gateway already.

    Full queues are waited out for ``patience_s`` at most, doubling from ``first_wait_s`` up to
    ``longest_wait_s`` (a retry_after_s longer than that is honoured); a lost call is made again at most
    ``max_losses`` times. ``sleep`` and ``monotonic`` are injected.
    """

    patience_s: float = 300.0
    first_wait_s: float = 0.25
    longest_wait_s: float = 10.0
    max_losses: int = 3
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """The result and the seconds of the try that succeeded; raises the last error when patience ends."""
        give_up = self.monotonic() + self.patience_s
        wait_s, losses = self.first_wait_s, 0
        while True:
            started = self.monotonic()
            try:
                return await attempt(), self.monotonic() - started
            except CapacityError as error:
                pause_s = max(wait_s, error.retry_after_s or 0.0)
                if self.monotonic() + pause_s > give_up:
                    raise
            except LostCall:
                losses += 1
                pause_s = wait_s
                if losses > self.max_losses:
                    raise
            await self.sleep(pause_s)
            wait_s = min(wait_s * 2, self.longest_wait_s)
