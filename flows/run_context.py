"""What belongs to one run and not to its graph, which many runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.graph_plan import GraphPlan
from flows.node_context import NodePorts
from flows.node_task import NodeTask, Source
from flows.state import AgentState
from flows.variables import question_of, variables_for
from registries.catalog import Catalog
from registries.contracts.errors import ParleyError
from registries.contracts.runs import NodeResult, RunOrder
from registries.specs import FlowSpec, NodeSpec

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class RunContext:
    """One attempt of a run: its order, its choices, and the results so far in order.

    ``results`` is added to; in a resumed run it begins with what was committed. ``missing`` says why a node
    has no model: the catalog may have changed since the run was admitted.
    """

    order: RunOrder
    flow: FlowSpec
    plan: GraphPlan
    catalog: Catalog
    ports: NodePorts
    models: Mapping[str, str | None]
    started: float
    results: list[NodeResult] = field(default_factory=list)
    missing: Mapping[str, ParleyError] = field(default_factory=dict)

    def elapsed_s(self) -> float:
        """Seconds since the run began here."""
        return self.ports.clock.monotonic() - self.started

    def task(self, state: AgentState, node: NodeSpec, visit: int, attempt: int = 1) -> NodeTask:
        """All that a visit of the node needs; raises what is in ``missing`` for it."""
        if node.id in self.missing:
            raise self.missing[node.id]
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
    last = {result["id"]: (at, result) for at, result in enumerate(state["results"])}
    return tuple(_source(name, *last[name]) for name in names if name in last)


def _source(name: str, at: int, found: Mapping[str, Any]) -> Source:
    told = {key: found[key] for key in ("role", "status", "text", "data", "error")}
    return Source(id=name, at=at, **told)


def _facts(state: AgentState) -> dict[str, object]:
    scores = list(state["scores"].values())
    return {"nodes": state["metrics"], "score": scores[-1] if scores else None}
