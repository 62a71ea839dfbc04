"""One visit of one node as JSON: all that a node needs, so that it can run in any process."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from registries.contracts.frozen import Frozen
from registries.contracts.runs import ErrorFact, NodeStatus
from registries.specs import NodeSpec


class Source(Frozen):
    """The latest visit of a node that this one follows. ``at`` is its place among all visits of the run.

    ``error`` says why one that failed did.
    """

    id: str
    role: str
    status: NodeStatus
    at: int = 0
    text: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    error: ErrorFact | None = None


class NodeTask(Frozen):
    """What to do: the node, what it may read, and the choices that the run has made for it.

    ``variables`` are the texts a prompt can name. ``deadline_s`` is the time that remains, in seconds,
    counted from the moment of sending. ``facts`` are the metrics of the run so far.
    """

    run_id: str
    request_id: str
    flow: str
    node: NodeSpec
    visit: int = 1
    attempt: int = 1
    question: str
    variables: dict[str, str] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    model: str | None = None
    strategy: str | None = None
    max_tokens: int | None = None
    seed: int | None = None
    deadline_s: float
    task_type: str | None = None
    available_vram_gb: float | None = None
    conversation_id: str | None = None
    tenant: str = "default"
    user: str = "admin"
    metadata: dict[str, str] = Field(default_factory=dict)
    traceparent: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def call_id(self) -> str:
        """``run_id:node_id:visit``: the same after a restart, different for every visit."""
        return f"{self.run_id}:{self.node.id}:{self.visit}"
