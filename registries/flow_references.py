"""Every name that a flow mentions must exist: prompts, models, tiers, strategies and nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from registries.condition import parse_condition
from registries.specs import FlowSpec, NodeSpec

ProblemCode = Literal[
    "unknown_prompt",
    "unknown_model",
    "unknown_tier",
    "unknown_strategy",
    "unknown_node",
    "unknown_signal",
    "bad_condition",
    "duplicate_node",
    "unknown_kind",
    "unreachable_node",
    "cycle",
    "bad_loop",
    "reserved_name",
    "missing_prompt",
    "unknown_input",
    "bad_placement",
    "bad_params",
    "bad_approval",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a flow; ``node`` is None where it concerns the whole, ``field`` is a path."""

    code: ProblemCode
    node: str | None
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What can be referred to."""

    models: Collection[str]
    tiers: Collection[str]
    strategies: Collection[str]
    prompts: Collection[str]

    def among(self, names: Collection[str]) -> str:
        """The allowed names for a message."""
        return ", ".join(sorted(names)) or "none"


def reference_problems(flow: FlowSpec, known: KnownNames) -> list[Problem]:
    """Every dangling reference and duplicate of the flow."""
    ids = {node.id for node in flow.nodes}
    problems = [
        Problem("duplicate_node", name, "nodes", f"node {name!r} is declared {count} times")
        for name, count in Counter(node.id for node in flow.nodes).items()
        if count > 1
    ]
    for at, node in enumerate(flow.nodes):
        problems.extend(_node_problems(node, f"nodes[{at}]", known))
    problems.extend(_endpoint_problems(flow, ids))
    problems.extend(_condition_problems(flow, ids))
    return problems


def _node_problems(node: NodeSpec, where: str, known: KnownNames) -> Iterator[Problem]:
    if node.prompt is not None and node.prompt not in known.prompts:
        message = f"unknown prompt {node.prompt!r}. Known: {known.among(known.prompts)}"
        yield Problem("unknown_prompt", node.id, f"{where}.prompt", message)
    if node.strategy is not None and node.strategy not in known.strategies:
        message = f"unknown strategy {node.strategy!r}. Known: {known.among(known.strategies)}"
        yield Problem("unknown_strategy", node.id, f"{where}.strategy", message)
    if node.model is None:
        return
    tier = node.model.removeprefix("tier:")
    if tier != node.model:
        if tier not in known.tiers:
            message = f"unknown tier {tier!r}. Known: {known.among(known.tiers)}"
            yield Problem("unknown_tier", node.id, f"{where}.model", message)
    elif node.model not in known.models:
        message = f"unknown model {node.model!r}. Known: {known.among(known.models)}"
        yield Problem("unknown_model", node.id, f"{where}.model", message)


def _endpoint_problems(flow: FlowSpec, ids: set[str]) -> Iterator[Problem]:
    mentioned = [
        *((f"edges[{at}].source", edge.source) for at, edge in enumerate(flow.edges)),
        *((f"edges[{at}].target", edge.target) for at, edge in enumerate(flow.edges)),
        *((f"loops[{at}].nodes", name) for at, loop in enumerate(flow.loops) for name in loop.nodes),
        *(("output.answer", name) for name in flow.output.answer),
        *(("output.baseline", name) for name in (flow.output.baseline,) if name is not None),
    ]
    for where, name in mentioned:
        if name not in ids:
            known = ", ".join(sorted(ids))
            yield Problem("unknown_node", None, where, f"unknown node {name!r}. Nodes: {known}")


def _condition_problems(flow: FlowSpec, ids: set[str]) -> Iterator[Problem]:
    written = [
        *((f"edges[{at}].condition", edge.condition) for at, edge in enumerate(flow.edges)),
        *((f"loops[{at}].until", loop.until) for at, loop in enumerate(flow.loops)),
    ]
    for where, text in written:
        if text is None:
            continue
        try:
            condition = parse_condition(text)
        except ValueError as error:
            yield Problem("bad_condition", None, where, str(error))
            continue
        if condition.node not in ids:
            message = f"unknown node {condition.node!r} in {text!r}. Nodes: {', '.join(sorted(ids))}"
            yield Problem("unknown_node", None, where, message)
            continue
