"""Where a flow goes: loops end, joins wait, conditions choose."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.graph_plan import GraphPlan
from registries.specs import FlowSpec
from tests.unit.flows.fakes import PACKAGE, flow_of


def plan_of(nodes: str, edges: str = "", **values: Any) -> GraphPlan:
    """Nodes as letters; edges as ``a>b`` or ``a>b?c.signal``."""
    return GraphPlan(spec_of(nodes, edges, **values))


def spec_of(nodes: str, edges: str = "", **values: Any) -> FlowSpec:
    parsed = []
    for edge in edges.split():
        path, _, condition = edge.partition("?")
        source, target = path.split(">")
        parsed.append(
            {"source": source, "target": target, "condition": condition.replace("!", "not ") or None}
        )
    return flow_of(nodes=[{"id": name} for name in nodes], edges=parsed, **values)


@given(
    length=st.integers(1, 4),
    rounds=st.integers(1, 20),
    until_at=st.none() | st.integers(0, 3),
    stops=st.lists(st.booleans(), min_size=25, max_size=25),
    override=st.none() | st.integers(1, 20),
)
def test_a_loop_never_exceeds_its_rounds_and_stops_right_after_its_signal(
    length: int, rounds: int, until_at: int | None, stops: list[bool], override: int | None
) -> None:
    members = "bcde"[:length]
    watched = members[until_at % length] if until_at is not None else None
    until = f"{watched}.done" if watched else None
    plan = plan_of(
        f"a{members}z",
        f"a>b {members[-1]}>z",
        loops=[{"nodes": list(members), "rounds": rounds, "until": until}],
    )
    visits = dict.fromkeys(f"a{members}z", 0)
    current, path = "a", ["a"]
    signals: dict[str, list[str]] = {}
    while current != "z":
        visits[current] += 1
        signals[current] = ["done"] if stops[visits[current]] else []
        following = plan.next_nodes(current, signals, visits[current], override)
        assert len(following) == 1
        current = following[0]
        path.append(current)
        assert len(path) <= 2 + length * 20
    assert visits["b"] <= (override or rounds)
    before = path[-2]
    if watched and before == watched and stops[visits[watched]]:
        assert visits[before] <= (override or rounds)
    else:
        assert before == members[-1]
        assert visits[before] == (override or rounds)
    if watched:
        assert not any(stops[visit] for visit in range(1, visits[watched]))


def test_challenge_leaves_from_the_challenger_when_it_is_content() -> None:
    plan = GraphPlan(PACKAGE.flows.get("challenge"))
    assert plan.entries == ("creator",)
    assert plan.next_nodes("creator", {}, 1) == ["challenger"]
    assert plan.next_nodes("challenger", {"challenger": ["no_fault"]}, 1) == []
    assert plan.next_nodes("challenger", {"challenger": ["fault"]}, 1) == ["refiner"]
    assert plan.next_nodes("refiner", {}, 1) == ["challenger"]
    assert plan.next_nodes("refiner", {}, 2) == []


def test_experts_are_entries_and_the_synthesizer_joins_them() -> None:
    plan = GraphPlan(PACKAGE.flows.get("multi_perspective"))
    assert plan.entries == ("security", "performance", "ux")
    assert plan.joins == {"synthesizer": ("security", "performance", "ux")}
    assert plan.predecessors["synthesizer"] == ("security", "performance", "ux")


def test_a_loop_is_an_entry_when_nothing_leads_to_it() -> None:
    plan = plan_of("ab", loops=[{"nodes": ["a", "b"], "rounds": 2}])
    assert plan.entries == ("a",)
    assert plan.predecessors == {"a": (), "b": ("a",)}
    assert plan.next_nodes("b", {}, 2) == []


def test_all_edges_out_of_a_loop_are_taken_when_it_ends_wherever_they_start() -> None:
    plan = plan_of("abyz", "a>y b>z", loops=[{"nodes": ["a", "b"], "rounds": 1, "until": "a.done"}])
    assert sorted(plan.next_nodes("a", {"a": ["done"]}, 1)) == ["y", "z"]
    assert sorted(plan.next_nodes("b", {}, 1)) == ["y", "z"]


def test_conditions_choose_among_edges() -> None:
    plan = plan_of("abc", "a>b?a.yes a>c?!a.yes")
    assert plan.next_nodes("a", {"a": ["yes"]}, 1) == ["b"]
    assert plan.next_nodes("a", {}, 1) == ["c"]
    assert not plan.is_static("a")


def test_a_join_behind_a_condition_is_deferred_since_one_source_may_never_run() -> None:
    plan = plan_of("abcd", "a>b a>c?a.yes b>d c>d")
    assert plan.joins == {}
    assert plan.deferred == {"d"}


def test_a_chain_of_joins_waits_for_each() -> None:
    plan = plan_of("abcde", "a>d b>d c>e d>e")
    assert plan.joins == {"d": ("a", "b"), "e": ("c", "d")}


def test_two_ways_out_of_one_loop_are_no_join() -> None:
    plan = plan_of("abz", "a>z b>z", loops=[{"nodes": ["a", "b"], "rounds": 1, "until": "a.done"}])
    assert plan.joins == {}
    assert plan.deferred == frozenset()
