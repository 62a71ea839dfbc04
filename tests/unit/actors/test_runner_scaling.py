from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.runner_scaling import RunnerScalingPolicy, desired_runners, runner_metrics

COUNTS = st.integers(0, 5_000)


def context(metrics: dict[str, list[float]], running: int, **changes: Any) -> SimpleNamespace:
    series = {
        name: {f"replica{n}": [SimpleNamespace(value=value)] for n, value in enumerate(values)}
        for name, values in metrics.items()
    }
    facts = {
        "raw_metrics": series,
        "running_replicas": ["r"] * running,
        "target_num_replicas": running,
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 4,
    }
    return SimpleNamespace(**{**facts, **changes})


@given(COUNTS, COUNTS, st.integers(1, 200), st.integers(0, 10), st.integers(0, 3), st.integers(3, 10))
def test_it_stays_within_bounds_and_never_falls_when_more_waits(
    held: int, queued: int, slots: int, running: int, low: int, high: int
) -> None:
    wanted = desired_runners(held, queued, slots, running, low, high)
    assert low <= wanted <= high
    assert desired_runners(held, queued + 100, slots, running, low, high) >= wanted


def test_a_full_runner_with_a_queue_gets_company_and_an_idle_one_loses_it() -> None:
    assert desired_runners(64, 1, 64, 1, 1, 4) == 2
    assert desired_runners(0, 0, 64, 3, 1, 4) == 1
    assert desired_runners(10, 0, 64, 1, 1, 4) == 1


@given(st.lists(st.floats(0, 4), max_size=8), COUNTS, COUNTS)
def test_busy_runners_never_lower_the_number_and_raise_it_by_one_at_most(
    busy: list[float], held: int, queued: int
) -> None:
    running = len(busy)
    without = desired_runners(held, queued, 64, running, 1, 10)
    wanted = desired_runners(held, queued, 64, running, 1, 10, busy)
    assert without <= wanted <= max(without, min(10, running + 1))


def test_a_runner_that_fills_its_core_gets_company_and_keeps_it_while_there_is_work_for_two() -> None:
    assert desired_runners(32, 0, 64, 1, 1, 4, [0.6]) == 1
    assert desired_runners(32, 0, 64, 1, 1, 4, [0.95]) == 2
    assert desired_runners(32, 0, 64, 2, 1, 4, [0.5, 0.5]) == 2
    assert desired_runners(32, 0, 64, 2, 1, 4, [0.3, 0.3]) == 1
    assert desired_runners(32, 0, 64, 2, 1, 2, [1.0, 1.0]) == 2, "the bound holds"


def test_the_policy_reads_how_busy_they_are() -> None:
    told = context({"held": [20.0], "queued": [0.0], "busy": [0.97]}, running=1)
    assert RunnerScalingPolicy(slots=64)(told) == (2, {})


def test_the_policy_adds_up_runners_and_takes_the_queue_once() -> None:
    policy = pickle.loads(pickle.dumps(RunnerScalingPolicy(slots=10)))
    told = context({"held": [10.0, 10.0], "queued": [8.0, 9.0]}, running=2)
    assert policy(told) == (4, {}), "29 runs at 7 a runner would be 5, the bound is 4"


def test_bad_figures_leave_the_number_and_say_why() -> None:
    broken = context({"held": [1.0]}, running=2, running_replicas=None)
    replicas, state = RunnerScalingPolicy(slots=10)(broken)
    assert replicas == 2 and "TypeError" in state["error"]


def test_what_a_runner_records() -> None:
    assert runner_metrics(3, 9, 0.5) == {"held": 3.0, "queued": 9.0, "busy": 0.5}
