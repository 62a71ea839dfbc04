"""Everything wrong with a flow, all at once; names that do not exist come from registries.flow_references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from flows.approval_problems import approval_problems, shown_problems
from flows.nodes.table import NODE_KINDS
from flows.state import AgentState
from flows.variables import (
    ALWAYS_THERE,
    RESERVED_VARIABLES,
    comment_variable,
    input_names,
    output_variable,
    score_variable,
)
from registries.catalog import Catalog
from registries.condition import parse_condition
from registries.contracts.errors import ValidationError
from registries.flow_references import KnownNames, Problem, reference_problems
from registries.specs import FlowSpec, NodeSpec

__all__ = ["RESERVED_NAMES", "Problem", "check_flow", "check_flows", "validate_flow"]

RESERVED_NAMES: frozenset[str] = frozenset(AgentState.__annotations__) | {"previous"}
"""Node ids that would collide with a channel of the state or a variable of prompts."""


def validate_flow(flow: FlowSpec, catalog: Catalog) -> list[Problem]:
    """Every problem of the flow, empty when it can run."""
    problems = reference_problems(flow, _known(catalog))
    problems += _name_problems(flow)
    for at, node in enumerate(flow.nodes):
        problems += _kind_problems(flow, node, f"nodes[{at}]", catalog)
    problems += _signal_problems(flow, catalog)
    problems += _loop_problems(flow)
    if not any(problem.code in ("unknown_node", "duplicate_node") for problem in problems):
        problems += _shape_problems(flow)
    return problems or list(approval_problems(flow))


def check_flow(flow: FlowSpec, catalog: Catalog) -> None:
    """Raise ValidationError with every problem of the flow."""
    problems = validate_flow(flow, catalog)
    if problems:
        lines = "\n".join(f"  - {problem.field}: {problem.message}" for problem in problems)
        raise ValidationError(f"flow {flow.name!r} cannot run:\n{lines}", f"flows.{flow.name}")


def check_flows(catalog: Catalog) -> None:
    """Raise ValidationError with every problem of every flow in the catalog."""
    lines = [
        f"  - {flow.name}: {problem.field}: {problem.message}"
        for flow in sorted(catalog.flows, key=lambda flow: flow.name)
        for problem in validate_flow(flow, catalog)
    ]
    if lines:
        raise ValidationError("flows that cannot run:\n" + "\n".join(lines), "flows")


def _known(catalog: Catalog) -> KnownNames:
    return KnownNames(
        models=catalog.models.names(),
        tiers=catalog.tiers,
        strategies=catalog.strategies.names(),
        prompts=catalog.prompts.names(),
    )


def _name_problems(flow: FlowSpec) -> Iterator[Problem]:
    for at, node in enumerate(flow.nodes):
        if node.id in RESERVED_NAMES:
            message = f"{node.id!r} is reserved; reserved: {', '.join(sorted(RESERVED_NAMES))}"
            yield Problem("reserved_name", node.id, f"nodes[{at}].id", message)
    taken = RESERVED_VARIABLES | {output_variable(node.id) for node in flow.nodes}
    for at, name in enumerate(input_names(flow)):
        if name in taken:
            yield Problem(
                "reserved_name", None, f"input[{at}]", f"{name!r} is the name of a variable that nodes set"
            )


def _kind_problems(flow: FlowSpec, node: NodeSpec, where: str, catalog: Catalog) -> Iterator[Problem]:
    kind = NODE_KINDS.get(node.kind)
    if kind is None:
        known = ", ".join(sorted(NODE_KINDS))
        yield Problem(
            "unknown_kind", node.id, f"{where}.kind", f"unknown node kind {node.kind!r}. Known: {known}"
        )
        return
    if kind.needs_prompt and node.prompt is None:
        yield Problem(
            "missing_prompt", node.id, f"{where}.prompt", f"a node of kind {node.kind!r} needs a prompt"
        )
    if node.placement == "task" and not kind.needs_prompt:
        message = f"a node of kind {node.kind!r} runs inline; only kinds that ask a model can be tasks"
        yield Problem("bad_placement", node.id, f"{where}.placement", message)
    if node.prompt is not None and node.prompt in catalog.prompts:
        there = _variables_there(flow, node) | kind.provides
        for name in catalog.prompts.get(node.prompt).inputs:
            if name not in there:
                message = f"prompt {node.prompt!r} needs {name!r}, which nothing provides. There are: "
                yield Problem("unknown_input", node.id, f"{where}.prompt", message + ", ".join(sorted(there)))
    for name, (low, high) in kind.numbers.items():
        value = node.params.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and low <= value <= high):
            message = f"{name} is {value!r}; allowed: a number from {low:g} to {high:g}"
            yield Problem("bad_params", node.id, f"{where}.params.{name}", message)
    yield from shown_problems(node, _variables_there(flow, node), where)
    watched = node.params.get("watch")
    if watched is not None and watched not in {other.id for other in flow.nodes}:
        yield Problem("unknown_node", node.id, f"{where}.params.watch", f"unknown node {watched!r}")


def _variables_there(flow: FlowSpec, node: NodeSpec) -> set[str]:
    texts = {name for name, value in node.params.items() if isinstance(value, str)}
    makers = (output_variable, score_variable, comment_variable)
    of_nodes = {make(other.id) for other in flow.nodes for make in makers}
    return texts | of_nodes | set(input_names(flow)) | ALWAYS_THERE


def _signal_problems(flow: FlowSpec, catalog: Catalog) -> Iterator[Problem]:
    by_id = {node.id: node for node in flow.nodes}
    written = [
        *((f"edges[{at}].condition", edge.condition) for at, edge in enumerate(flow.edges)),
        *((f"loops[{at}].until", loop.until) for at, loop in enumerate(flow.loops)),
    ]
    for where, text in written:
        try:
            condition = parse_condition(text) if text is not None else None
        except ValueError:
            continue  # already a problem of the references
        node = by_id.get(condition.node) if condition else None
        if condition is None or node is None:
            continue
        signals = _signals_of(node, catalog)
        if condition.signal not in signals:
            known = ", ".join(sorted(signals)) or "none"
            message = f"node {node.id!r} has no signal {condition.signal!r}. Signals: {known}"
            yield Problem("unknown_signal", node.id, where, message)


def _signals_of(node: NodeSpec, catalog: Catalog) -> set[str]:
    kind = NODE_KINDS.get(node.kind)
    signals = set(kind.signals) if kind else set()
    if node.prompt is not None and node.prompt in catalog.prompts:
        prompt = catalog.prompts.get(node.prompt)
        signals |= set(prompt.signals).union(*(variant.signals for variant in prompt.variants.values()))
    return signals


def _loop_problems(flow: FlowSpec) -> Iterator[Problem]:
    counted = Counter(name for loop in flow.loops for name in loop.nodes)
    for name, count in counted.items():
        if count > 1:
            yield Problem(
                "bad_loop", name, "loops", f"node {name!r} is in loops {count} times; once is allowed"
            )
    for at, loop in enumerate(flow.loops):
        until = loop.until
        try:
            condition = parse_condition(until) if until else None
        except ValueError:
            continue
        if condition is not None and condition.node not in loop.nodes:
            message = f"until names {condition.node!r}, which is not in the loop: {', '.join(loop.nodes)}"
            yield Problem("bad_loop", condition.node, f"loops[{at}].until", message)


def _shape_problems(flow: FlowSpec) -> Iterator[Problem]:
    homes = {name: at for at, loop in enumerate(flow.loops) for name in loop.nodes}
    for at, edge in enumerate(flow.edges):
        home = homes.get(edge.target)
        if home is None:
            continue
        nodes = flow.loops[home].nodes
        if homes.get(edge.source) != home and edge.target != nodes[0]:
            message = f"a loop is entered at its first node, {nodes[0]!r}, not at {edge.target!r}"
            yield Problem("bad_loop", edge.target, f"edges[{at}].target", message)
        if homes.get(edge.source) == home and (edge.source, edge.target) not in _steps(nodes):
            message = f"nodes of a loop run in their order, {' → '.join(nodes)}; this edge leaves it"
            yield Problem("cycle", edge.target, f"edges[{at}]", message)
    reached, cyclic = _walk(flow, homes)
    for name in sorted(cyclic):
        yield Problem("cycle", name, "edges", f"node {name!r} is on a cycle; repeat nodes with loops")
    for node in flow.nodes:
        if node.id not in reached and node.id not in cyclic:
            yield Problem(
                "unreachable_node", node.id, "edges", f"no path from the start leads to node {node.id!r}"
            )


def _steps(nodes: tuple[str, ...]) -> set[tuple[str, str]]:
    """Edges inside a loop that say nothing new: the order, and the way back to its first node."""
    return set(pairwise(nodes)) | {(nodes[-1], nodes[0])}


def _walk(flow: FlowSpec, homes: dict[str, int]) -> tuple[set[str], set[str]]:
    """Reached nodes and nodes on cycles, with every loop folded into one step (Kahn's algorithm)."""
    unit = {
        node.id: ("loop", homes[node.id]) if node.id in homes else ("node", node.id) for node in flow.nodes
    }
    targets: dict[object, set[object]] = {step: set() for step in unit.values()}
    for edge in flow.edges:
        if unit[edge.source] != unit[edge.target] or edge.source not in homes:
            targets[unit[edge.source]].add(unit[edge.target])
    waiting = Counter(target for following in targets.values() for target in following)
    ready = [step for step in targets if not waiting[step]]
    done: set[object] = set()
    while ready:
        step = ready.pop()
        done.add(step)
        for target in targets[step]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    on_cycles = _on_cycles(targets, set(targets) - done)
    return {n for n, step in unit.items() if step in done}, {
        n for n, step in unit.items() if step in on_cycles
    }


def _on_cycles(targets: dict[object, set[object]], suspects: set[object]) -> set[object]:
    """Those that can reach themselves; the others only come after a cycle."""
    found: set[object] = set()
    for start in suspects:
        seen: set[object] = set()
        frontier = list(targets[start])
        while frontier:
            step = frontier.pop()
            if step not in seen:
                seen.add(step)
                frontier.extend(targets[step])
        if start in seen:
            found.add(start)
    return found
