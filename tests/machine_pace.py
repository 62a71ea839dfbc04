"""How much slower than usual this machine is, so that a deadline means the same work everywhere."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import lru_cache

_STEPS = 1_000_000
_USUAL_S = 0.04
"""So many subtractions on an idle core: the middle of what one machine of the tests gave (0.03 to 0.06)."""
_GRACE, _TRACED_GRACE = 2.0, 4.0
"""Chosen, not measured: for what a loop does not show, such as slow wake-ups between processes, and for
coverage's tracer in every process. A limit here is never tighter than twice its figure."""


_AGAIN_S = 60.0


@dataclass
class _Loop:
    """The slowest that this process has seen, and when it last looked (monotonic)."""

    slowest_s: float
    looked_at: float


def paced(seconds: float) -> float:
    """A limit stated for the usual machine, as it is here; never less than stated.

    Figures are measured in benchmarks/. A test's limit only tells what is late from what never comes, and on
    shared machines, whose speed differs threefold from day to day, a bare number of seconds tells nothing.
    """
    grace = _TRACED_GRACE if os.environ.get("PARLEY_COVERAGE_DATA") else _GRACE
    return seconds * max(1.0, _loop().slowest_s / _USUAL_S) * grace


def measure_again() -> None:
    """Notice that the machine has become slower; between tests, for it blocks."""
    loop = _loop()
    if time.monotonic() - loop.looked_at > _AGAIN_S:
        loop.slowest_s, loop.looked_at = max(loop.slowest_s, _loop_s()), time.monotonic()


@lru_cache(maxsize=1)
def _loop() -> _Loop:
    return _Loop(_loop_s(), time.monotonic())


def _loop_s() -> float:
    """The middle of three."""
    return sorted(_one_loop_s() for _ in range(3))[1]


def _one_loop_s() -> float:
    begun = time.perf_counter()
    left = _STEPS
    while left:
        left -= 1
    return time.perf_counter() - begun
