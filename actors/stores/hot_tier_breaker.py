"""When to stop asking a Redis that does not answer, and when to ask again."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0


class HotTierBreaker:
    """One failure opens it, one success closes it: behind it there is always the database.

    (The providers' breakers count to three, because there a try is all that a caller has.) One a ``side``
    (writes, reads, following), so that a slow answer to one reader does not stop the mirror.
    """

    def __init__(self, side: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._side = side
        self._clock = clock
        self._pause_s = 0.0
        self._retry_at = 0.0
        self._failed_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last try failed."""
        return self._pause_s > 0

    @property
    def wait_s(self) -> float:
        """Seconds until the next try is allowed."""
        return max(0.0, self._retry_at - self._clock())

    def allows(self) -> bool:
        """Whether to try now. While it is open, one caller a pause gets a yes."""
        if not self.is_open:
            return True
        if self.wait_s > 0:
            return False
        self._retry_at = self._clock() + self._pause_s
        return True

    def fail(self, error: BaseException) -> None:
        """A try failed; the pause doubles up to five seconds."""
        if not self.is_open:
            self._failed_at = self._clock()
            # The class only: Redis quotes commands in some errors, and a command holds what a run said.
            structlog.get_logger("actors.stores").warning(
                "hot_tier_away", side=self._side, error=type(error).__name__
            )
        self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        self._retry_at = self._clock() + self._pause_s

    def succeed(self) -> bool:
        """A try succeeded; whether the breaker was open before."""
        if not self.is_open:
            return False
        away_s = round(self._clock() - self._failed_at, 3)
        structlog.get_logger("actors.stores").info("hot_tier_back", side=self._side, away_s=away_s)
        self._pause_s = self._retry_at = 0.0
        return True
