"""A flow as a Mermaid flowchart: roles, kinds and models as boxes, conditions and rounds on the arrows."""

from __future__ import annotations

from flows.graph_plan import GraphPlan
from registries.specs import FlowSpec, NodeSpec


def draw_mermaid(flow: FlowSpec, plan: GraphPlan) -> str:
    """The same flow always gives the same text."""
    lines = ["flowchart TD", "  start([start])"]
    lines += [f'  {node.id}["{_label(node)}"]' for node in flow.nodes]
    lines.append("  finish([answer])")
    lines += [f"  start --> {name}" for name in plan.entries]
    for node in flow.nodes:
        lines += _arrows(plan, node.id)
    return "\n".join(lines) + "\n"


def _arrows(plan: GraphPlan, name: str) -> list[str]:
    loop = plan.loops.get(name)
    if loop is None:
        routes = plan.routes(name)
        drawn = [_arrow(name, r.target, str(r.condition) if r.condition else "") for r in routes]
        return drawn or [f"  {name} --> finish"]
    at = loop.nodes.index(name)
    last = at + 1 == len(loop.nodes)
    goal = [route.target for route in loop.exits] or ["finish"]
    ends_here = loop.until is not None and loop.until.node == name
    if not last:
        leave = [_arrow(name, target, str(loop.until)) for target in goal] if ends_here else []
        return [_arrow(name, loop.nodes[at + 1], f"not {loop.until}" if ends_here else ""), *leave]
    unless = f", until {loop.until}" if loop.until else ""
    repeat = [_arrow(name, loop.nodes[0], f"at most {loop.rounds} rounds{unless}")]
    return [*repeat, *(_arrow(name, target, "") for target in goal)]


def _arrow(source: str, target: str, words: str) -> str:
    return f'  {source} -->|"{words}"| {target}' if words else f"  {source} --> {target}"


def _label(node: NodeSpec) -> str:
    details = [node.kind, *([node.model] if node.model else [])]
    role = f"{node.role}<br/>" if node.role and node.role != node.id else ""
    words = f"<b>{node.id}</b><br/>{role}{', '.join(details)}"
    return words.replace('"', "#quot;")
