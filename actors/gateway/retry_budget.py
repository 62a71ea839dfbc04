"""A cap on a process's retries as a share of its requests, so that an outage is not answered with a storm."""

from __future__ import annotations

from collections.abc import Callable

RATIO = 0.2
"""Retries allowed per request (Finagle's default)."""
FLOOR_PER_S = 1.0
"""Retries a second that even an idle process may make."""
FLOOR = 10.0
"""Tokens at the start, and the level up to which the floor refills."""
CAPACITY = 100.0


class RetryBudget:
    """Token bucket: each request pays in RATIO, each retry takes out one."""

    def __init__(
        self,
        clock: Callable[[], float],
        ratio: float = RATIO,
        floor: float = FLOOR,
        floor_per_s: float = FLOOR_PER_S,
        capacity: float = CAPACITY,
    ) -> None:
        self._clock = clock
        self._ratio = ratio
        self._floor = floor
        self._floor_per_s = floor_per_s
        self._capacity = capacity
        self._tokens = floor
        self._refilled = clock()

    @property
    def tokens(self) -> float:
        """Retries affordable now."""
        self._refill()
        return self._tokens

    def deposit(self) -> None:
        """A request was made."""
        self._refill()
        self._tokens = min(self._capacity, self._tokens + self._ratio)

    def withdraw(self) -> bool:
        """Take one retry; False when the budget is used up."""
        self._refill()
        if self._tokens < 1.0 - 1e-9:  # ten fifths of a request are two retries, floats or not
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def _refill(self) -> None:
        now = self._clock()
        gained = (now - self._refilled) * self._floor_per_s
        self._refilled = now
        if self._tokens < self._floor:
            self._tokens = min(self._floor, self._tokens + gained)
