"""A run of a flow: what is asked, what happens meanwhile, what comes out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from registries.contracts.frozen import Frozen, refuse_boolean
from registries.contracts.generation import MAX_PROMPT_CHARS, MAX_TOKENS_CEILING, Attempt, BreakerFact, Usage

RunStatus = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
NodeStatus = Literal["completed", "failed", "skipped"]
EventType = Literal[
    "run.queued",
    "run.started",
    "run.waiting",
    "run.resumed",
    "run.restarted",
    "run.released",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "node.started",
    "node.token",
    "node.completed",
    "node.failed",
    "node.skipped",
    "round.started",
]
"""Closed within an API version; a new type is a minor version and is documented in docs/api.md."""

TOKEN_EVENT: EventType = "node.token"
"""The one volatile type: never committed, its seq is that of the last durable event."""
NODE_ENDS: frozenset[str] = frozenset({"node.completed", "node.failed", "node.skipped"})
"""Each carries the visit's NodeResult as its data."""
TERMINAL_STATUSES: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
TERMINAL_EVENTS: frozenset[str] = frozenset({"run.completed", "run.failed", "run.cancelled"})
SETTLED_STATUSES: frozenset[str] = TERMINAL_STATUSES | {"waiting"}
SETTLED_EVENTS: frozenset[str] = TERMINAL_EVENTS | {"run.waiting"}
"""After these nobody works on a run: a client that waits for it gets its answer."""
END_EVENTS: dict[RunStatus, EventType] = {
    "completed": "run.completed",
    "failed": "run.failed",
    "cancelled": "run.cancelled",
}


class RunRequest(Frozen):
    """What a client asks of ``/api/orchestrate`` and ``/api/runs``.

    ``models`` maps a role to a model_key. Queued runs of a higher ``priority`` start first; within one
    priority the order of acceptance counts.
    """

    prompt: str = Field(default="", max_length=MAX_PROMPT_CHARS)
    input: dict[str, Any] | None = None
    flow_type: str
    flow_version: str | None = None
    strategy: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS_CEILING)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    budget_usd: float | None = Field(default=None, ge=0)
    conversation_id: str | None = Field(default=None, max_length=200)
    metadata: dict[str, str] = Field(default_factory=dict)
    target: str | None = None
    """The known right answer, where the caller has one: a checker then measures the improvement."""
    on_disconnect: Literal["continue", "cancel"] = "continue"
    priority: int = Field(default=0, ge=-10, le=10)

    _numbers = field_validator("max_tokens", "seed", "deadline_s", "budget_usd", "priority", mode="before")(
        refuse_boolean
    )

    @model_validator(mode="after")
    def _asks_something(self) -> RunRequest:
        if not self.prompt.strip() and not self.input:
            raise ValueError("prompt must not be empty (or give input)")
        return self


class Waiting(Frozen):
    """What a run that waits for a human shows: the node, the text to judge, what may be answered."""

    node: str
    interrupt_id: str
    text: str = ""
    question: str = ""
    actions: tuple[str, ...] = ("approve", "edit", "reject")


class Decision(Frozen):
    """A human's answer to a waiting run. ``edit`` replaces the text by ``text``; ``reject`` ends or reroutes.

    ``interrupt_id`` names the question (the run's ``Waiting``): a decision given with it never answers
    another one. Left out it means the question that the run waits with, which the store then fills in.
    """

    action: Literal["approve", "edit", "reject"]
    text: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    comment: str | None = Field(default=None, max_length=10_000)
    interrupt_id: str = ""

    @model_validator(mode="after")
    def _edit_has_text(self) -> Decision:
        if self.action == "edit" and not (self.text or "").strip():
            # A blank text is no answer: the run would end with the one that was edited away.
            raise ValueError("action 'edit' needs the new text")
        if self.action != "edit" and self.text is not None:
            raise ValueError(f"text belongs to action 'edit', not to {self.action!r}")
        return self


class Feedback(Frozen):
    """A user's satisfaction with a run: 0 (useless) to 1 (just right)."""

    rating: float = Field(ge=0, le=1)
    comment: str | None = Field(default=None, max_length=10_000)


class ErrorFact(Frozen):
    """An error as it is shown: the code of the tree, a message without internals."""

    code: str
    message: str
    retryable: bool = False
    fault: str | None = None
    param: str | None = None
    retry_after_s: float | None = None


class NodeTimings(Frozen):
    """Seconds since the run's start, and the node's own duration."""

    started_s: float = 0.0
    duration_s: float = 0.0


INHERITED = "inherited_from"
"""In a NodeResult's data: the run in which the node ran, of which this one is a fork."""


class NodeResult(Frozen):
    """One visit of one node. ``data`` holds what the node's kind adds (task_type, score, signals …)."""

    id: str
    role: str
    kind: str = ""
    visit: int = 1
    status: NodeStatus
    text: str = ""
    model_resolved: str | None = None
    source: str | None = None
    usage: Usage = Usage()
    timings: NodeTimings = NodeTimings()
    cache_hit: bool = False
    attempts: tuple[Attempt, ...] = ()
    breaker: BreakerFact | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    error: ErrorFact | None = None


class Improvement(Frozen):
    """Score of the last answer minus the first, in [-1, 1]; null with a reason when nothing fit judges."""

    first_score: float | None = None
    final_score: float | None = None
    delta: float | None = None
    method: Literal["checker", "judge"] | None = None
    reason: str | None = None


class RunTimings(Frozen):
    """Seconds waited and worked."""

    queued_s: float = 0.0
    total_s: float = 0.0


class RunResult(Frozen):
    """The whole answer of a run, as HTTP, artifact and store show it."""

    run_id: str
    flow: str
    flow_version: str
    status: RunStatus
    answer: str = ""
    nodes: tuple[NodeResult, ...] = ()
    usage: Usage = Usage()
    timings: RunTimings = RunTimings()
    improvement: Improvement = Improvement()
    rounds: int = 0
    artifact: str | None = None
    request_id: str = ""
    error: ErrorFact | None = None
    notices: tuple[str, ...] = ()
    waiting: Waiting | None = None


class RunEvent(Frozen):
    """One thing that happened in a run. ``seq`` is gapless for durable events; tokens carry the last one."""

    run_id: str
    seq: int
    time: float
    """Seconds since the epoch, wall clock of the runner; for people, never for ordering."""
    type: EventType
    node: str | None = None
    attempt: int = 1
    data: dict[str, Any] = Field(default_factory=dict)


class RunOrder(Frozen):
    """A committed run on its way to a runner: the request plus what the front door fixed."""

    run_id: str
    request_id: str
    request: RunRequest
    deadline_s: float
    """Seconds that remain, counted from the moment of sending."""
    tenant: str = "default"
    user: str = "admin"
    traceparent: str | None = None
    """W3C trace context, carried in our own envelope."""
    attempt: int = 1
