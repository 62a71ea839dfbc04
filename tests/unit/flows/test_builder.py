"""Graphs are compiled once a version, and do what the flow says."""

from __future__ import annotations

from typing import Any

import pytest

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from registries.contracts.errors import ValidationError
from registries.contracts.generation import GenerationRequest
from registries.specs import FlowSpec, PromptSpec
from tests.unit.flows.fakes import PACKAGE, World, catalog_with, order
from tests.unit.flows.test_graph_plan import spec_of

SAYS = PromptSpec(id="answer_yes", inputs=("input",), text="{{input}}", signals={"yes": "yes"})


def saying(flow: FlowSpec) -> FlowSpec:
    """The same flow with a prompt that has the signal ``yes``."""
    nodes = tuple(node.model_copy(update={"prompt": "answer_yes"}) for node in flow.nodes)
    return flow.model_copy(update={"nodes": nodes})


async def path_of(flow: FlowSpec, *yes: str, **request: Any) -> list[str]:
    """Nodes in the order they started; those in ``yes`` raise the signal."""
    world = World(
        lambda asked: "yes" if asked.metadata["node"] in yes else "no",
        catalog=catalog_with(flow, prompts=(SAYS,)),
    )
    result = await execute_flow(order("trial", **request), flow, FlowGraphs(world.catalog), world.ports())
    assert result.status == "completed", result.error
    return [node or "" for type, node, _, _ in world.events.seen if type == "node.started"]


def test_a_version_is_compiled_once() -> None:
    graphs = FlowGraphs(PACKAGE)
    flow = PACKAGE.flows.get("challenge")
    assert graphs.compiled(flow) is graphs.compiled(FlowSpec.model_validate(flow.model_dump()))
    assert len(graphs) == 1


def test_the_version_used_longest_ago_is_dropped() -> None:
    graphs = FlowGraphs(PACKAGE, capacity=2)
    first, second, third = (PACKAGE.flows.get(name) for name in PACKAGE.flows.names()[:3])
    kept = graphs.compiled(first)
    dropped = graphs.compiled(second)
    assert graphs.compiled(first) is kept
    graphs.compiled(third)
    assert graphs.compiled(first) is kept
    assert graphs.compiled(second) is not dropped
    assert len(graphs) == 2


def test_a_broken_flow_is_refused_with_all_its_problems() -> None:
    with pytest.raises(ValidationError, match=r"(?s)unknown node 'x'.*unknown node 'y'"):
        FlowGraphs(PACKAGE).compiled(spec_of("a", "a>x a>y"))


async def test_a_diamond_joins_once() -> None:
    assert sorted(await path_of(spec_of("abcd", "a>b a>c b>d c>d"))) == ["a", "b", "c", "d"]


async def test_branches_of_unequal_length_join_once_and_last() -> None:
    path = await path_of(spec_of("abcdef", "a>b b>c c>f a>f a>d d>e e>f"))
    assert sorted(path) == ["a", "b", "c", "d", "e", "f"]
    assert path[-1] == "f"


async def test_a_deferred_join_runs_once_whichever_branch_was_taken() -> None:
    flow = saying(spec_of("abcde", "a>b b>e a>c?a.yes c>d d>e"))
    assert sorted(await path_of(flow, "a")) == ["a", "b", "c", "d", "e"]
    assert await path_of(flow) == ["a", "b", "e"]


async def test_a_condition_that_nothing_fulfils_ends_the_branch() -> None:
    flow = saying(spec_of("ab", "a>b?a.yes", output={"answer": ["b", "a"]}))
    assert await path_of(flow) == ["a"]


async def test_loops_follow_each_other() -> None:
    loops = [{"nodes": ["b"], "rounds": 2}, {"nodes": ["c", "d"], "rounds": 2}]
    path = await path_of(spec_of("abcde", "a>b b>c d>e", loops=loops))
    assert path == ["a", "b", "b", "c", "d", "c", "d", "e"]


async def test_many_rounds_do_not_hit_the_graph_librarys_step_limit() -> None:
    flow = spec_of("ab", loops=[{"nodes": ["a", "b"], "rounds": 20}], input=["prompt", "rounds?"])
    assert len(await path_of(flow)) == 40
    assert len(await path_of(flow, input={"rounds": 3})) == 6


async def test_every_node_sees_all_earlier_outputs_by_name() -> None:
    prompt = PromptSpec(
        id="sees",
        inputs=("input", "a_output", "b_output", "previous_output", "answer", "round"),
        text="{{input}}|{{a_output}}|{{b_output}}|{{previous_output}}|{{answer}}|{{round}}",
    )
    flow = spec_of("abc", "a>b b>c", output={"answer": ["c", "a"]})
    nodes = tuple(node.model_copy(update={"prompt": "sees"}) for node in flow.nodes)
    flow = flow.model_copy(update={"nodes": nodes})
    world = World(_initial, catalog=catalog_with(flow, prompts=(prompt,)))
    await execute_flow(order("trial", prompt="q"), flow, FlowGraphs(world.catalog), world.ports())
    assert world.generator.prompts() == ["q|||||1", "q|A||A|A|1", "q|A|B|B|A|1"]


def _initial(request: GenerationRequest) -> str:
    return request.metadata["node"].upper()


def test_the_drawing_of_challenge() -> None:
    assert FlowGraphs(PACKAGE).mermaid(PACKAGE.flows.get("challenge")) == (
        "flowchart TD\n"
        "  start([start])\n"
        '  creator["<b>creator</b><br/>generate, tier:light"]\n'
        '  challenger["<b>challenger</b><br/>critique, tier:strong"]\n'
        '  refiner["<b>refiner</b><br/>generate, tier:strong"]\n'
        "  finish([answer])\n"
        "  start --> creator\n"
        "  creator --> challenger\n"
        '  challenger -->|"not challenger.no_fault"| refiner\n'
        '  challenger -->|"challenger.no_fault"| finish\n'
        '  refiner -->|"at most 2 rounds, until challenger.no_fault"| challenger\n'
        "  refiner --> finish\n"
    )


def test_every_edge_of_a_drawing_is_there() -> None:
    drawing = FlowGraphs(PACKAGE).mermaid(PACKAGE.flows.get("linear"))
    for arrow in ("analyzer --> monitor", "validator --> history", "summary --> finish"):
        assert f"  {arrow}\n" in drawing
