"""How much slower than usual this machine is, so that a deadline means the same work everywhere."""

from __future__ import annotations

import os
import time
from functools import lru_cache

_STEPS = 1_000_000
_USUAL_S = 0.04
"""So many subtractions on an idle core: the middle of what one machine of the tests gave (0.03 to 0.06)."""
_GRACE, _TRACED_GRACE = 2.0, 4.0
"""Chosen, not measured: for what a loop does not show, such as slow wake-ups between processes, and for
coverage's tracer in every process. A limit here is never tighter than twice its figure."""


def paced(seconds: float) -> float:
    """A limit stated for the usual machine, as it is here; never less than stated.

    Figures are measured in benchmarks/. A test's limit only tells what is late from what never comes, and on
    shared machines, whose speed differs threefold from day to day, a bare number of seconds tells nothing.
    """
    return seconds * _machine_pace()


@lru_cache(maxsize=1)
def _machine_pace() -> float:
    """Measured once a process."""
    took = sorted(_loop_s() for _ in range(3))[1]
    return max(1.0, took / _USUAL_S) * (_TRACED_GRACE if os.environ.get("PARLEY_COVERAGE_DATA") else _GRACE)


def _loop_s() -> float:
    begun = time.perf_counter()
    left = _STEPS
    while left:
        left -= 1
    return time.perf_counter() - begun
