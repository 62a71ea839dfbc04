"""Delays between tries."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.backoff import backoff_s
from registries.specs import RetryPolicy

DEFAULTS = RetryPolicy()


def test_the_defaults_double_up_to_a_minute() -> None:
    rng = random.Random(0)
    delays = [backoff_s(DEFAULTS, n, 1e9, rng) for n in range(8)]
    assert all(d is not None for d in delays)
    for delay, base in zip(delays, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert base <= (delay or 0) <= base * 1.1


def test_retry_after_raises_the_delay_and_an_endless_one_is_not_waited_for() -> None:
    rng = random.Random(0)
    delay = backoff_s(DEFAULTS, 0, 1e9, rng, retry_after_s=30)
    assert delay is not None and 30 <= delay <= 33
    assert backoff_s(DEFAULTS, 0, 1e9, rng, retry_after_s=61) is None
    shorter = backoff_s(DEFAULTS, 3, 1e9, rng, retry_after_s=0.1)
    assert shorter is not None and shorter >= 8


@given(
    attempt=st.integers(0, 10_000),
    factor=st.floats(1, 10),
    cap=st.floats(0.1, 600),
    remaining_s=st.floats(0, 1000),
    retry_after_s=st.none() | st.floats(0, 1000),
    seed=st.integers(0, 100),
)
def test_never_past_the_deadline_and_never_more_than_a_tenth_over_the_cap(
    attempt: int, factor: float, cap: float, remaining_s: float, retry_after_s: float | None, seed: int
) -> None:
    policy = RetryPolicy(backoff_factor=factor, max_backoff_s=cap)
    delay = backoff_s(policy, attempt, remaining_s, random.Random(seed), retry_after_s)
    if delay is not None:
        assert 0 < delay < remaining_s
        assert delay <= cap * 1.1 + 1e-9
        assert delay >= min(retry_after_s or 0, cap)
