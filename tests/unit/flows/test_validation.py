"""Every problem of a flow is found, and named by node and field."""

from __future__ import annotations

from typing import Any

import pytest

from flows.validation import check_flows, validate_flow
from registries.contracts.errors import ValidationError
from registries.specs import FlowSpec
from tests.unit.flows.fakes import PACKAGE, catalog_with, flow_of
from tests.unit.flows.test_graph_plan import spec_of


def problems_of(flow: FlowSpec) -> set[tuple[str, str | None, str]]:
    found = validate_flow(flow, PACKAGE)
    assert all(problem.message for problem in found)
    return {(problem.code, problem.node, problem.field) for problem in found}


def loop(*nodes: str, **values: Any) -> list[dict[str, Any]]:
    return [{"nodes": list(nodes), **values}]


def test_a_good_flow_has_no_problem() -> None:
    assert problems_of(spec_of("abc", "a>b b>c", loops=loop("b", rounds=2))) == set()


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"kind": "dream"}, ("unknown_kind", "one", "nodes[0].kind")),
        ({"prompt": None}, ("missing_prompt", "one", "nodes[0].prompt")),
        ({"prompt": "nope"}, ("unknown_prompt", "one", "nodes[0].prompt")),
        ({"prompt": "merge_views"}, ("unknown_input", "one", "nodes[0].prompt")),
        ({"prompt": "expert_view"}, ("unknown_input", "one", "nodes[0].prompt")),
        ({"model": "nano"}, ("unknown_model", "one", "nodes[0].model")),
        ({"model": "tier:odd"}, ("unknown_tier", "one", "nodes[0].model")),
        ({"strategy": "odd"}, ("unknown_strategy", "one", "nodes[0].strategy")),
        ({"id": "results"}, ("reserved_name", "results", "nodes[0].id")),
        ({"id": "previous"}, ("reserved_name", "previous", "nodes[0].id")),
        ({"params": {"max_tokens": 0}}, ("bad_params", "one", "nodes[0].params.max_tokens")),
        (
            {"params": {"retry_temperature": "hot"}},
            ("bad_params", "one", "nodes[0].params.retry_temperature"),
        ),
        ({"params": {"watch": "x"}}, ("unknown_node", "one", "nodes[0].params.watch")),
        (
            {"kind": "validate", "prompt": None, "model": None, "placement": "task"},
            ("bad_placement", "one", "nodes[0].placement"),
        ),
    ],
)
def test_problems_of_a_node(node: dict[str, Any], problem: tuple[str, str | None, str]) -> None:
    assert problem in problems_of(flow_of(nodes=[{"id": "one", **node}]))


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (flow_of(nodes=[{"id": "a"}, {"id": "a"}]), {("duplicate_node", "a", "nodes")}),
        (spec_of("a", input=["prompt", "answer"]), {("reserved_name", None, "input[1]")}),
        (spec_of("a", input=["prompt", "a_output"]), {("reserved_name", None, "input[1]")}),
        (spec_of("a", output={"answer": ["x"]}), {("unknown_node", None, "output.answer")}),
        (spec_of("ab", "a>b?a.wild"), {("unknown_signal", "a", "edges[0].condition")}),
        (spec_of("ab", "a>b?whatever"), {("bad_condition", None, "edges[0].condition")}),
        (spec_of("ab", "a>b b>a"), {("cycle", "a", "edges"), ("cycle", "b", "edges")}),
        (spec_of("a", "a>a"), {("cycle", "a", "edges")}),
        (
            spec_of("abcd", "a>b b>c c>b c>d"),
            {("cycle", "b", "edges"), ("cycle", "c", "edges"), ("unreachable_node", "d", "edges")},
        ),
        (spec_of("ab", "a>b", loops=loop("b", until="b.wild")), {("unknown_signal", "b", "loops[0].until")}),
        (spec_of("ab", "a>b", loops=loop("b", until="wild")), {("bad_condition", None, "loops[0].until")}),
        (
            spec_of("ab", loops=[*loop("a", "b"), *loop("b")]),
            {("bad_loop", "b", "loops")},
        ),
        (spec_of("abc", "a>c", loops=loop("b", "c")), {("bad_loop", "c", "edges[0].target")}),
        (spec_of("abc", "a>c", loops=loop("a", "b", "c")), {("cycle", "c", "edges[0]")}),
        (spec_of("abc", "a>b b>c c>a", loops=loop("b", "c")), {("cycle", n, "edges") for n in "abc"}),
    ],
)
def test_problems_of_the_whole(flow: FlowSpec, expected: set[tuple[str, str | None, str]]) -> None:
    assert problems_of(flow) == expected


def test_a_loop_waits_for_signals_of_its_own_nodes_only() -> None:
    flow = flow_of(
        nodes=[{"id": "a", "kind": "critique", "prompt": "challenge"}, {"id": "b"}],
        edges=[{"source": "a", "target": "b"}],
        loops=loop("b", until="a.no_fault"),
    )
    assert problems_of(flow) == {("bad_loop", "a", "loops[0].until")}


def test_edges_that_repeat_a_loops_order_say_nothing_new() -> None:
    assert problems_of(spec_of("abc", "a>b b>c c>a", loops=loop("a", "b", "c"))) == set()


def test_all_flows_are_checked_together() -> None:
    check_flows(PACKAGE)
    bad = catalog_with(spec_of("a", "a>a"), spec_of("a", "a>x", name="other"))
    with pytest.raises(ValidationError, match=r"(?s)other: edges\[0\].target.*trial: edges"):
        check_flows(bad)
