"""FlowSpec → compiled LangGraph graph, kept by content hash so that no request compiles one again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from flows.graph_plan import GraphPlan
from flows.mermaid import draw_mermaid
from flows.run_context import RunContext
from flows.state import AgentState, visits_of
from flows.validation import check_flow
from flows.visit import visit_node
from registries.catalog import Catalog
from registries.specs import FlowSpec, NodeSpec

CompiledFlow = CompiledStateGraph[AgentState, RunContext, AgentState, AgentState]


class FlowGraphs:
    """Compiled graphs of at most ``capacity`` flow versions; the one used longest ago goes first."""

    def __init__(self, catalog: Catalog, capacity: int = 64) -> None:
        self.catalog = catalog
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[GraphPlan, CompiledFlow]] = OrderedDict()
        self._valid: set[str] = set()

    def compiled(self, flow: FlowSpec) -> CompiledFlow:
        """The graph; raises ValidationError with every problem of the flow."""
        return self._entry(flow)[1]

    def plan(self, flow: FlowSpec) -> GraphPlan:
        """Where the flow goes from each node; raises like ``compiled``."""
        return self._entry(flow)[0]

    def begun(self, flow: FlowSpec) -> tuple[GraphPlan, CompiledFlow]:
        """Plan and graph of a run that has begun: the flow was valid then, and is not judged again.

        What it names may be gone from the catalog since; a node that needs it says so.
        """
        return self._kept.get(flow.version) or self._keep(flow)

    def mermaid(self, flow: FlowSpec) -> str:
        """A drawing of the flow; raises like ``compiled``."""
        return draw_mermaid(flow, self.plan(flow))

    def __len__(self) -> int:
        return len(self._kept)

    def _entry(self, flow: FlowSpec) -> tuple[GraphPlan, CompiledFlow]:
        version = flow.version
        if version not in self._valid:
            check_flow(flow, self.catalog)
            self._valid.add(version)
        entry = self._kept.get(version) or self._keep(flow)
        self._kept.move_to_end(version)
        return entry

    def _keep(self, flow: FlowSpec) -> tuple[GraphPlan, CompiledFlow]:
        plan = GraphPlan(flow)
        entry = self._kept[flow.version] = (plan, build_graph(flow, plan))
        if len(self._kept) > self._capacity:
            dropped, _ = self._kept.popitem(last=False)
            self._valid.discard(dropped)
        return entry


def build_graph(flow: FlowSpec, plan: GraphPlan) -> CompiledFlow:
    """Nodes, joins and routes of a valid flow as LangGraph has them; terminal nodes lead to END."""
    graph: StateGraph[AgentState, RunContext, AgentState, AgentState] = StateGraph(
        AgentState, context_schema=RunContext
    )
    for node in flow.nodes:
        graph.add_node(node.id, _visitor(node), defer=node.id in plan.deferred)
    for name in plan.entries:
        graph.add_edge(START, name)
    for target, sources in plan.joins.items():
        graph.add_edge(list(sources), target)
    for node in flow.nodes:
        if plan.is_static(node.id):
            _add_static_edges(graph, plan, node.id)
        else:
            targets = [*plan.all_targets(node.id), END]
            graph.add_conditional_edges(node.id, _router(plan, node.id), targets)
    return graph.compile()


def _add_static_edges(graph: StateGraph[Any, Any, Any, Any], plan: GraphPlan, node_id: str) -> None:
    targets = plan.static_targets(node_id)
    for target in targets:
        if node_id not in plan.joins.get(target, ()):
            graph.add_edge(node_id, target)
    if not targets:
        graph.add_edge(node_id, END)


class _Visitor(Protocol):
    """LangGraph hands the runtime over by name."""

    def __call__(self, state: AgentState, *, runtime: Runtime[RunContext]) -> Awaitable[dict[str, Any]]: ...


def _visitor(node: NodeSpec) -> _Visitor:
    async def visit(state: AgentState, *, runtime: Runtime[RunContext]) -> dict[str, Any]:
        return await visit_node(state, runtime.context, node)

    return visit


def _router(plan: GraphPlan, node_id: str) -> Callable[[AgentState], list[str]]:
    def route(state: AgentState) -> list[str]:
        rounds = state["input"].get("rounds")
        return plan.next_nodes(node_id, state["signals"], visits_of(state, node_id), rounds) or [END]

    return route
