"""The few statistics that a table of paired accuracies needs; pure, exact where it is cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a proportion, both ends in [0, 1]."""

    low: float
    high: float


class Discordance(NamedTuple):
    """Of pairs: only the first was right, only the second was right."""

    lost: int
    gained: int


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (Wilson 1927); (0, 1) when there were no trials.

    Raises ValueError unless 0 <= successes <= trials and 0 < confidence < 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes {successes} must lie between 0 and trials {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1")
    if trials == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(low, high)


def discordance(before: Sequence[bool], after: Sequence[bool]) -> Discordance:
    """Count the pairs that changed; raises ValueError for sequences of different lengths."""
    pairs = list(zip(before, after, strict=True))
    return Discordance(lost=sum(b and not a for b, a in pairs), gained=sum(a and not b for b, a in pairs))


def mcnemar_exact_p(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: a fair coin over the pairs that changed; 1.0 when none did.

    Integer arithmetic up to the last division, so that thousands of pairs neither overflow nor round to 0
    before they must. Raises ValueError for negative counts.
    """
    if lost < 0 or gained < 0:
        raise ValueError(f"counts must not be negative: lost {lost}, gained {gained}")
    changed = lost + gained
    if changed == 0:
        return 1.0
    smaller = min(lost, gained)
    term = tail = 1
    for k in range(1, smaller + 1):
        term = term * (changed - k + 1) // k
        tail += term
    return min(1.0, (2 * tail) / (1 << changed))


def quantile(values: Sequence[float], q: float) -> float | None:
    """Linear interpolation between order statistics; None of no values.

    Raises ValueError unless 0 <= q <= 1.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q {q} must lie between 0 and 1")
    if not values:
        return None
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    # low + share * step, never a mix of two products: stays inside [low, high] in floating point
    return min(ordered[low] + (position - low) * (ordered[high] - ordered[low]), ordered[high])


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of no values."""
    return math.fsum(values) / len(values) if values else None
