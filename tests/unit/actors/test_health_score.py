from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.health_score import WEIGHTS, HealthFacts, health_document

WELL = HealthFacts(
    deadline_s=300.0, queue_limit=100, success_rate=1.0, ended=10, latency_p95_s=5.0, queued=0,
    breakers=4, parts=3, ready_parts=3, store_reachable=True,
)  # fmt: skip
COUNTS = st.integers(0, 1000)
SECONDS = st.floats(0, 1e6)


@st.composite
def any_facts(draw: st.DrawFn) -> HealthFacts:
    breakers = draw(st.none() | COUNTS)
    parts = draw(st.none() | COUNTS)
    opened = draw(st.integers(0, breakers or 0))
    return HealthFacts(
        deadline_s=draw(st.floats(0.1, 1e5)),
        queue_limit=draw(COUNTS),
        success_rate=draw(st.none() | st.floats(0, 1)),
        latency_p95_s=draw(st.none() | SECONDS),
        queued=draw(st.none() | COUNTS),
        oldest_queued_s=draw(SECONDS),
        breakers=breakers,
        breakers_open=opened,
        breakers_half_open=draw(st.integers(0, (breakers or 0) - opened)),
        parts=parts,
        ready_parts=draw(st.integers(0, parts or 0)),
        store_reachable=draw(st.none() | st.booleans()),
    )


def score(facts: HealthFacts) -> float:
    return float(health_document(facts)["score"])


@given(any_facts())
def test_all_scores_are_bounded_and_explained(facts: HealthFacts) -> None:
    document = health_document(facts)
    assert 0.0 <= document["score"] <= 1.0
    for part in document["parts"].values():
        assert 0.0 <= part["score"] <= 1.0 and part["why"]
    if document["parts"]:
        assert sum(part["weight"] for part in document["parts"].values()) == pytest.approx(1.0)
        mean = sum(part["weight"] * part["score"] for part in document["parts"].values())
        assert document["score"] == pytest.approx(mean)


@given(any_facts(), st.data())
def test_what_is_worse_never_scores_better(facts: HealthFacts, data: st.DataObject) -> None:
    worse: dict[str, Any] = {}
    if facts.success_rate is not None:
        worse["success_rate"] = data.draw(st.floats(0, facts.success_rate))
    if facts.latency_p95_s is not None:
        worse["latency_p95_s"] = data.draw(st.floats(facts.latency_p95_s, 1e6))
    if facts.queued is not None:
        worse["queued"] = data.draw(st.integers(facts.queued, 2000))
    worse["oldest_queued_s"] = data.draw(st.floats(facts.oldest_queued_s, 1e6))
    if facts.breakers:
        closed = facts.breakers - facts.breakers_open - facts.breakers_half_open
        worse["breakers_half_open"] = facts.breakers_half_open + data.draw(st.integers(0, closed))
    worse["ready_parts"] = data.draw(st.integers(0, facts.ready_parts))
    if facts.store_reachable:
        worse["store_reachable"] = data.draw(st.booleans())
    for name, value in worse.items():
        assert score(replace(facts, **{name: value})) <= score(facts) + 1e-12, name
    assert score(replace(facts, **worse)) <= score(facts) + 1e-12


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("success", {"success_rate": None}),
        ("latency", {"latency_p95_s": None}),
        ("queue", {"queued": None}),
        ("breakers", {"breakers": None}),
        ("replicas", {"parts": None}),
        ("store", {"store_reachable": None}),
    ],
)
def test_a_missing_part_is_left_out_and_the_rest_weigh_more(part: str, missing: dict[str, None]) -> None:
    whole, without = health_document(WELL), health_document(replace(WELL, **missing))  # type: ignore[arg-type]
    assert set(whole["parts"]) - set(without["parts"]) == {part}
    assert without["score"] == pytest.approx(1.0)
    for name, found in without["parts"].items():
        assert found["weight"] == pytest.approx(WEIGHTS[name] / (1 - WEIGHTS[part]))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("success", {"success_rate": 0.0}),
        ("latency", {"latency_p95_s": 300.0}),
        ("queue", {"queued": 100}),
        ("queue", {"queued": 1, "oldest_queued_s": 300.0}),
        ("breakers", {"breakers_open": 4}),
        ("replicas", {"ready_parts": 0}),
        ("store", {"store_reachable": False}),
    ],
)
def test_each_part_can_lose_all_of_its_weight(part: str, change: dict[str, Any]) -> None:
    document = health_document(replace(WELL, **change))
    assert document["parts"][part]["score"] == pytest.approx(0.0)
    assert document["score"] == pytest.approx(1 - WEIGHTS[part])


def test_weights_add_up() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert set(health_document(WELL)["parts"]) == set(WEIGHTS)


def test_weights_are_shown_as_plain_numbers() -> None:
    def shown(facts: HealthFacts) -> dict[str, str]:
        return {name: str(part["weight"]) for name, part in health_document(facts)["parts"].items()}

    assert shown(WELL) == {name: str(weight) for name, weight in WEIGHTS.items()}
    assert shown(replace(WELL, store_reachable=None))["success"] == "0.375"


def test_half_a_bound_takes_nothing_off() -> None:
    calm = health_document(replace(WELL, latency_p95_s=150.0, queued=50, oldest_queued_s=150.0))
    assert calm["score"] == pytest.approx(1.0)
    assert health_document(replace(WELL, latency_p95_s=225.0))["parts"]["latency"]["score"] == 0.5
    assert health_document(replace(WELL, breakers_half_open=4))["parts"]["breakers"]["score"] == 0.5


def test_a_queue_without_a_limit_is_judged_by_its_age_alone() -> None:
    assert score(replace(WELL, queue_limit=0, queued=10**9)) == pytest.approx(1.0)


def test_nothing_known_is_not_well() -> None:
    assert health_document(HealthFacts(deadline_s=1.0)) == {"score": 0.0, "parts": {}}
