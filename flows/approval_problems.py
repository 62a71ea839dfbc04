"""What is wrong with the nodes of a flow that wait for a human."""

from __future__ import annotations

from collections.abc import Iterator

from flows.graph_plan import GraphPlan
from flows.nodes.approve import APPROVED, REJECTED, SHOWN
from registries.condition import Condition, parse_condition
from registries.flow_references import Problem
from registries.specs import FlowSpec, NodeSpec

Guards = frozenset[Condition]


def approval_problems(flow: FlowSpec) -> Iterator[Problem]:
    """Problems of ``approve`` nodes in a flow that is right otherwise.

    Nothing may run beside one: an answer to one of several questions makes LangGraph begin all their nodes
    again, and a run that waits must hold nothing that works.
    """
    waiting = [node for node in flow.nodes if node.kind == "approve"]
    if not waiting:
        return
    plan = GraphPlan(flow)
    after = {node.id: _reachable(plan, node.id) for node in flow.nodes}
    guards = _guards(flow, plan)
    for node in waiting:
        where = f"nodes[{flow.nodes.index(node)}]"
        if not plan.predecessors[node.id]:
            message = f"node {node.id!r} follows no node, so there is nothing to approve"
            yield Problem("bad_approval", node.id, where, message)
        if node.on_error == "continue":
            message = (
                "a rejection must not be passed over; allowed: fail, with an edge for the signal rejected"
            )
            yield Problem("bad_approval", node.id, f"{where}.on_error", message)
        for other in flow.nodes:
            apart = other.id != node.id and other.id not in after[node.id] and node.id not in after[other.id]
            if apart and not _exclude(guards[node.id], guards[other.id]):
                message = f"nothing may run beside a node that waits for a human; {other.id!r} may"
                yield Problem("bad_approval", node.id, where, message)


def shown_problems(node: NodeSpec, there: set[str], where: str) -> Iterator[Problem]:
    """Problems of the parameter that names what to judge; ``there`` are the variables of prompts."""
    shown = node.params.get(SHOWN)
    if node.kind == "approve" and shown is not None and shown not in there:
        message = f"show is {shown!r}, which nothing provides. There are: {', '.join(sorted(there))}"
        yield Problem("unknown_input", node.id, f"{where}.params.{SHOWN}", message)


def _reachable(plan: GraphPlan, start: str) -> set[str]:
    seen: set[str] = set()
    frontier = [start]
    while frontier:
        for target in plan.all_targets(frontier.pop()):
            if target not in seen:
                seen.add(target)
                frontier.append(target)
    return seen


def _guards(flow: FlowSpec, plan: GraphPlan) -> dict[str, Guards]:
    """Conditions that must have held on every way to a node (the greatest fixed point over its sources)."""
    everything = frozenset(_plain(flow, edge.condition) for edge in flow.edges if edge.condition)
    found = {node.id: everything if plan.predecessors[node.id] else frozenset() for node in flow.nodes}
    changed = True
    while changed:
        changed = False
        for name, sources in plan.predecessors.items():
            ways = [found[source] | _edge_guards(flow, plan, source, name) for source in sources]
            guards = frozenset.intersection(*ways) if ways else frozenset()
            if guards != found[name]:
                found[name], changed = guards, True
    return found


def _edge_guards(flow: FlowSpec, plan: GraphPlan, source: str, target: str) -> Guards:
    """What held if ``target`` came after ``source``: nothing where an edge without a condition leads."""
    loop = plan.loops.get(source)
    routes = plan.routes(source) if loop is None else loop.exits
    found = [route.condition for route in routes if route.target == target]
    if len(found) != 1 or found[0] is None:
        return frozenset()
    return frozenset({_plain(flow, str(found[0]))})


def _plain(flow: FlowSpec, text: str) -> Condition:
    """The condition; of an approve node, ``rejected`` is the contrary of ``approved``."""
    condition = parse_condition(text)
    asked = any(node.id == condition.node and node.kind == "approve" for node in flow.nodes)
    if asked and condition.signal == REJECTED:
        return Condition(condition.node, APPROVED, not condition.negated)
    return condition


def _exclude(ours: Guards, theirs: Guards) -> bool:
    """Whether both can never hold in one run."""
    return any(Condition(c.node, c.signal, not c.negated) in theirs for c in ours)
