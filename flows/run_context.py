"""What belongs to one run and not to its graph, which many runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.graph_plan import GraphPlan
from flows.node_context import NodePorts
from flows.node_task import NodeTask, Source
from flows.state import AgentState
from flows.variables import question_of, variables_for
from registries.catalog import Catalog
from registries.contracts.runs import NodeResult, RunOrder
from registries.specs import FlowSpec, NodeSpec

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run: its order, its choices, and the results so far in order (``results`` is added to)."""

    order: RunOrder
    flow: FlowSpec
    plan: GraphPlan
    catalog: Catalog
    ports: NodePorts
    models: Mapping[str, str | None]
    started: float
    results: list[NodeResult] = field(default_factory=list)

    def elapsed_s(self) -> float:
        """Seconds since the run began here."""
        return self.ports.clock.monotonic() - self.started

    def task(self, state: AgentState, node: NodeSpec, visit: int, attempt: int = 1) -> NodeTask:
        """All that a visit of the node needs."""
        request, memory = self.order.request, state["memory"]
        return NodeTask(
            run_id=self.order.run_id,
            request_id=self.order.request_id,
            flow=self.flow.name,
            node=node,
            visit=visit,
            attempt=attempt,
            question=question_of(state),
            variables=variables_for(state, self.flow, node, visit),
            sources=sources_of(state, self.plan.predecessors[node.id]),
            model=self.models[node.id],
            strategy=request.strategy or node.strategy,
            max_tokens=request.max_tokens,
            seed=derived_seed(request.seed, node.id, visit),
            deadline_s=max(self.order.deadline_s - self.elapsed_s(), 1e-3),
            task_type=memory.get("task_type"),
            available_vram_gb=memory.get("available_vram_gb"),
            conversation_id=request.conversation_id,
            tenant=self.order.tenant,
            user=self.order.user,
            metadata=request.metadata,
            traceparent=self.order.traceparent,
            facts=_facts(state),
        )


def derived_seed(seed: int | None, node_id: str, visit: int) -> int | None:
    """A seed of its own for each visit of each node; None stays None."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}:{node_id}:{visit}".encode()).digest()[:8]) % _SEEDS


def sources_of(state: AgentState, names: tuple[str, ...]) -> tuple[Source, ...]:
    """The latest visit of each of these nodes, in their order; nodes that have not run are left out."""
    last = {result["id"]: result for result in state["results"]}
    return tuple(
        Source(id=name, role=found["role"], status=found["status"], text=found["text"], data=found["data"])
        for name in names
        if (found := last.get(name)) is not None
    )


def _facts(state: AgentState) -> dict[str, object]:
    scores = list(state["scores"].values())
    return {"nodes": state["metrics"], "score": scores[-1] if scores else None}
