from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.tally import Tally, merged, nearest_rank, spread, success_rate

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([1.0], 50, 1.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), ([1.0, 2.0], 51, 2.0)],
)
def test_nearest_rank_by_hand(values: list[float], percent: int, expected: float) -> None:
    assert nearest_rank(values, percent) == expected
    assert nearest_rank([float(n) for n in range(1, 101)], 95) == 95.0


@given(VALUES, st.integers(1, 100))
def test_a_rank_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], percent: int) -> None:
    rank = nearest_rank(sorted(values), percent)
    assert rank in values
    assert sum(v <= rank for v in values) * 100 >= percent * len(values)
    assert sum(v < rank for v in values) * 100 < percent * len(values)


@given(VALUES)
def test_a_spread_is_ordered(values: list[float]) -> None:
    s = spread(values)
    assert s["count"] == len(values)
    assert s["min"] <= s["p50"] <= s["p95"] <= s["max"]
    assert s["min"] <= s["avg"] * (1 + 1e-9) and s["avg"] <= s["max"] * (1 + 1e-9)


def test_nothing_has_no_figures() -> None:
    assert spread([]) == {"count": 0, "avg": None, "min": None, "max": None, "p50": None, "p95": None}
    figures = Tally().figures("runs", ("completed",))
    assert figures["success_rate"] is None and figures["satisfaction"] == {"avg": None, "count": 0}


def test_success_is_among_what_completed_or_failed() -> None:
    assert success_rate({"completed": 3, "failed": 1, "cancelled": 50, "running": 9}) == 0.75
    assert success_rate({"cancelled": 1}) is None


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["completed", "failed"]), st.floats(0, 9)), max_size=5), max_size=5
    )
)
def test_parts_add_up_to_the_whole(parts: list[list[tuple[str, float]]]) -> None:
    whole, tallies = Tally(), []
    for part in parts:
        tally = Tally()
        for status, seconds in part:
            for one in (tally, whole):
                one.add(status, "e" if status == "failed" else None, 1, (seconds,))
                one.spend(1, 2, 3, 1)
                one.rate(0.5)
        tallies.append(tally)
    assert merged(tallies).figures("runs", ("completed", "failed")) == whole.figures(
        "runs", ("completed", "failed")
    )
