"""What the function of a node kind gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.node_task import NodeTask
from flows.ports import Clock, EventSink, Generator, History, Placement, Resources
from registries.catalog import Catalog
from registries.contracts.errors import BudgetError
from registries.contracts.generation import GenerationResult


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The world as nodes see it. Without listeners, ``stream_tokens=False`` saves the cost of streaming."""

    generator: Generator
    events: EventSink
    resources: Resources
    history: History
    placement: Placement
    clock: Clock
    stream_tokens: bool = True


@dataclass(frozen=True, slots=True)
class NodeContext:
    """One visit. ``started`` is the clock's reading when the visit began here."""

    task: NodeTask
    ports: NodePorts
    catalog: Catalog
    started: float

    def remaining_s(self) -> float:
        """Seconds left for this node; raises BudgetError when there are none."""
        node_limit = self.task.node.timeout_s
        limit = self.task.deadline_s if node_limit is None else min(self.task.deadline_s, node_limit)
        left = limit - (self.ports.clock.monotonic() - self.started)
        if left <= 0:
            raise BudgetError(f"no time left for node {self.task.node.id!r}", "deadline_s")
        return left

    def param(self, name: str, default: Any) -> Any:
        """A parameter of the node, or the default."""
        return self.task.node.params.get(name, default)


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """What a node made: a text, data by name, and the model's answer where it asked one."""

    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    generation: GenerationResult | None = None
    skipped: bool = False
