"""When a call is made again, and how long to wait before it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from registries.contracts.errors import BudgetError, ParleyError, ProviderError
from serve_app.client.api_errors import AnswerLate, NotRunning
from serve_app.client.call import Request

_TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
# Serve's HAProxy answers 500 where it means 502, 503 or 504 (Ray 2.60, errorfile in haproxy_templates.py).
_PROXY_STATUSES = _TRANSIENT_STATUSES | {500}
# The gateway has retried and fallen back already, and a spent deadline stays spent.
_FINAL_CODES = frozenset({ProviderError.code, BudgetError.code})


@dataclass(frozen=True, slots=True)
class Retries:
    """The policy of a client.

    ``times`` is how often one call is repeated. Waits are "full jitter", uniform in
    [0, min(max_wait_s, base_s · 2ⁿ)] (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015), after
    the server's Retry-After where it named one; a Retry-After beyond ``max_retry_after_s`` is not waited for.
    ``patience_s`` is how long a reader of events tries to attach again before it gives up.
    """

    times: int = 2
    base_s: float = 0.5
    max_wait_s: float = 8.0
    max_retry_after_s: float = 20.0
    patience_s: float = 120.0
    on_reattach: Callable[[ParleyError, float, int], None] | None = None
    """Told when a stream of events is cut: the error, the seconds until the next try, its number from 1."""
    rng: random.Random = field(default_factory=random.Random, repr=False)

    def wait_s(self, attempt: int, error: ParleyError) -> float | None:
        """Seconds before repetition number ``attempt`` (0 is the first); None when it is not worth it."""
        # The exponent is bounded because a float overflows at 2.0 ** 1024, long after every cap.
        jitter_s = self.rng.uniform(0.0, min(self.max_wait_s, self.base_s * 2.0 ** min(attempt, 32)))
        told_s = error.retry_after_s or 0.0
        return None if told_s > self.max_retry_after_s else told_s + jitter_s


class Tries:
    """The tries of one request: at most ``times`` repetitions, none after its own time of ``whole_s``."""

    def __init__(self, policy: Retries, request: Request, whole_s: float, repeatable: bool = True) -> None:
        self._policy = policy
        self._times = policy.times if repeatable else 0
        self._ends_at = time.monotonic() + min(whole_s, request.deadline_s or whole_s)
        self._failed = 0

    def wait_after(self, error: ParleyError) -> float:
        """Seconds to wait before the next try; raises the error when there is none."""
        wait_s = self._policy.wait_s(self._failed, error) if is_transient(error) else None
        self._failed += 1
        if wait_s is None or self._failed > self._times or time.monotonic() + wait_s >= self._ends_at:
            raise error from None
        return wait_s


def is_transient(error: ParleyError) -> bool:
    """Whether the same request may succeed in a moment: nobody there, connection broken, full, restarting."""
    if isinstance(error, AnswerLate):
        return False
    if isinstance(error, NotRunning):
        return True
    if error.context.get("code") in _FINAL_CODES:
        return False
    status = error.context.get("status")
    if error.context.get("code") is None:
        return status in _PROXY_STATUSES
    # An answer of ours that says false is final.
    return status in _TRANSIENT_STATUSES and error.retryable
