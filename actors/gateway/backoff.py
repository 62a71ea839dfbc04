"""How long to wait before the next try."""

from __future__ import annotations

import random

from registries.specs import RetryPolicy

JITTER = 0.1
"""Largest random share added to a delay (features B7)."""


def backoff_s(
    policy: RetryPolicy,
    attempt: int,
    remaining_s: float,
    rng: random.Random,
    retry_after_s: float | None = None,
) -> float | None:
    """Seconds to wait before retry number ``attempt`` (0 is the first), or None when there is no time left.

    min(factor ** attempt, max_backoff_s) plus at most 10 %; a provider's Retry-After raises it, up to
    max_backoff_s. A wait that would use up ``remaining_s`` is not worth starting.
    """
    # The exponent is bounded because a float overflows at 2.0 ** 1024, long after every cap.
    delay = min(policy.backoff_factor ** min(attempt, 64), policy.max_backoff_s)
    if retry_after_s is not None:
        if retry_after_s > policy.max_backoff_s:
            return None
        delay = max(delay, retry_after_s)
    delay *= 1.0 + JITTER * rng.random()
    return delay if delay < remaining_s else None
