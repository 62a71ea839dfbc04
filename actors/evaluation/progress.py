"""One line that says where an evaluation stands; pure but for the injected clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.evaluation.records import ItemRecord


class Progress:
    """Counts what is done. ``expect`` announces an arm's items, ``add`` counts one that ended."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._expected = 0
        self._arm = ""
        self.done = self.errors = self.skipped = 0
        self._right = self._scored = 0

    def expect(self, arm: str, items: int, skipped: int) -> None:
        """From now on this arm is worked on: so many items to do, so many done by an earlier run."""
        self._arm = arm
        self._expected += items
        self.skipped += skipped
        self._right = self._scored = 0

    def add(self, record: ItemRecord) -> None:
        """Count one item."""
        self.done += 1
        self.errors += record.error is not None
        if record.final_correct is not None:
            self._scored += 1
            self._right += record.final_correct

    def line(self) -> str:
        """``evaluation: 120/500 items, challenge 91.2 % right, 0 errors, 12.3 items/s, 31 s left``"""
        seconds = max(self._monotonic() - self._started, 1e-9)
        rate = self.done / seconds
        left = f", {(self._expected - self.done) / rate:.0f} s left" if self.done else ""
        right = f" {100 * self._right / self._scored:.1f} % right," if self._scored else ""
        earlier = f" ({self.skipped} from an earlier run)" if self.skipped else ""
        return (
            f"evaluation: {self.done}/{self._expected} items{earlier}, {self._arm}{right} "
            f"{self.errors} errors, {rate:.1f} items/s{left}"
        )
