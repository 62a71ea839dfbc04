"""How often a run is looked at until it ended, and when that has become too long."""

from __future__ import annotations

import time
from collections.abc import Callable

from registries.contracts.errors import BudgetError, ParleyError
from serve_app.client.answers import RunDetail
from serve_app.client.api_errors import NotRunning
from serve_app.client.following import Until, checked_until
from serve_app.client.retries import Retries, is_transient

_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 2.0


class Awaiting:
    """One wait for one run. A runtime that is away is waited for with the patience of the policy."""

    def __init__(
        self,
        retries: Retries,
        timeout_s: float | None,
        until: Until,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retries, self._timeout_s, self._clock = retries, timeout_s, clock
        self._until = checked_until(until)
        self._began_at = self._seen_at = clock()
        self._look_s = _FIRST_LOOK_S
        self._failed = 0

    def wait_after(self, seen: RunDetail) -> float | None:
        """Seconds until the next look; None when it is over. Raises BudgetError when time is up."""
        if seen.ended or (seen.status == "waiting" and self._until == "waiting"):
            return None
        self._failed, self._seen_at = 0, self._clock()
        wait_s, self._look_s = self._look_s, min(self._look_s * 1.5, _LONGEST_LOOK_S)
        return self._in_time(wait_s, f"run {seen.run_id} is {seen.status}; it goes on")

    def wait_after_error(self, error: ParleyError) -> float:
        """Seconds until the next look; raises the error when it is final or patience has run out."""
        transient = isinstance(error, NotRunning) or is_transient(error)
        wait_s = self._retries.wait_s(self._failed, error) if transient else None
        self._failed += 1
        if wait_s is None or self._clock() + wait_s - self._seen_at > self._retries.patience_s:
            raise error from None
        return self._in_time(wait_s, error.message)

    def _in_time(self, wait_s: float, state: str) -> float:
        if self._timeout_s is None:
            return wait_s
        left_s = self._began_at + self._timeout_s - self._clock()
        if left_s <= 0:
            raise BudgetError(f"{self._timeout_s:g} s are over: {state}", param="timeout_s")
        return min(wait_s, left_s)
