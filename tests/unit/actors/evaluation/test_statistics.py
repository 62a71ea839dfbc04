"""Statistics of paired accuracies, against definitions, published values and each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.statistics import (
    Discordance,
    discordance,
    mcnemar_exact_p,
    mean,
    quantile,
    wilson_interval,
)

counts = st.integers(0, 400)
numbers = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I, method 3: 81/263 and 15/148
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(counts, counts)
def test_wilson_contains_the_share_and_stays_in_bounds(a: int, b: int) -> None:
    successes, trials = min(a, b), max(a, b, 1)
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1


@given(counts, counts)
def test_wilson_is_symmetric(a: int, b: int) -> None:
    successes, trials = min(a, b), max(a, b, 1)
    low, high = wilson_interval(successes, trials)
    mirrored = wilson_interval(trials - successes, trials)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@given(st.integers(1, 200), st.integers(0, 100), st.integers(2, 50))
def test_wilson_narrows_with_more_trials(trials: int, percent: int, factor: int) -> None:
    successes = trials * percent // 100
    few, many = wilson_interval(successes, trials), wilson_interval(successes * factor, trials * factor)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 1.0)])
def test_wilson_refuses_nonsense(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        wilson_interval(successes, trials, confidence)


def test_mcnemar_against_known_values() -> None:
    assert mcnemar_exact_p(0, 0) == 1.0
    assert mcnemar_exact_p(0, 5) == pytest.approx(0.0625)
    assert mcnemar_exact_p(1, 9) == pytest.approx(0.021484375)
    assert mcnemar_exact_p(5, 5) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail(lost: int, gained: int) -> None:
    changed = lost + gained
    tail = sum(math.comb(changed, k) for k in range(min(lost, gained) + 1))
    assert mcnemar_exact_p(lost, gained) == pytest.approx(min(1.0, 2 * tail / 2**changed))


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_is_a_symmetric_probability(lost: int, gained: int) -> None:
    p = mcnemar_exact_p(lost, gained)
    assert 0 <= p <= 1
    assert p == mcnemar_exact_p(gained, lost)


@given(st.integers(0, 100), st.integers(0, 100))
def test_mcnemar_falls_as_the_gain_grows(lost: int, extra: int) -> None:
    assert mcnemar_exact_p(lost, lost + extra + 1) <= mcnemar_exact_p(lost, lost + extra)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact_p(-1, 2)


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_discordance_explains_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    changed = discordance(before, after)
    assert changed.gained - changed.lost == sum(after) - sum(before)
    assert discordance(after, before) == Discordance(changed.gained, changed.lost)


def test_discordance_wants_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        discordance([True], [])


@given(numbers, st.floats(0, 1), st.floats(0, 1))
def test_quantile_is_monotone_and_inside(values: list[float], a: float, b: float) -> None:
    low, high = quantile(values, min(a, b)), quantile(values, max(a, b))
    assert low is not None and high is not None
    assert min(values) <= low <= high <= max(values)


@given(numbers)
def test_quantile_ends_are_the_extremes(values: list[float]) -> None:
    assert quantile(values, 0) == min(values)
    assert quantile(values, 1) == max(values)


def test_quantile_interpolates() -> None:
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([], 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1], 1.5)


@given(numbers)
def test_mean_lies_inside(values: list[float]) -> None:
    middle = mean(values)
    assert middle is not None
    assert min(values) - 1e-3 <= middle <= max(values) + 1e-3


def test_mean_of_nothing() -> None:
    assert mean([]) is None
