"""Retries as a share of requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.retry_budget import CAPACITY, FLOOR, RATIO, RetryBudget
from tests.unit.actors.gateway.played import Clock


def test_a_small_floor_then_a_fifth_of_the_requests() -> None:
    budget = RetryBudget(Clock())
    assert sum(budget.withdraw() for _ in range(100)) == FLOOR
    for _ in range(50):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 10


def test_an_idle_process_gets_its_floor_back() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    while budget.withdraw():
        pass
    clock.now += 3
    assert budget.tokens == 3
    clock.now += 1000
    assert budget.tokens == FLOOR


@given(st.lists(st.sampled_from(["request", "retry"]), max_size=400))
def test_retries_never_exceed_the_floor_and_the_share(steps: list[str]) -> None:
    budget = RetryBudget(Clock())
    requests = retries = 0
    for step in steps:
        if step == "request":
            budget.deposit()
            requests += 1
        else:
            retries += budget.withdraw()
        assert retries <= FLOOR + RATIO * requests + 1e-6
        assert 0 <= budget.tokens <= CAPACITY
