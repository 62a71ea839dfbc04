"""How much of a core this process uses."""

from __future__ import annotations

import time
from collections.abc import Callable


class ProcessorShare:
    """Processor seconds, of all threads, over the seconds that passed; 1.0 is one core."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.process_time
    ) -> None:
        self._now = now
        self._used = used
        self._last = (now(), used())

    def read(self) -> float:
        """The share since the last reading, or since it was made; 0 when no time has passed."""
        before, self._last = self._last, (self._now(), self._used())
        passed_s, used_s = (new - old for new, old in zip(self._last, before, strict=True))
        return used_s / passed_s if passed_s > 0 else 0.0
