"""What the runtime answers, as the client hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict

from registries.contracts.errors import InternalError
from registries.contracts.generation import GenerationChunk, GenerationResult, Usage
from registries.contracts.runs import (
    TERMINAL_STATUSES,
    ErrorFact,
    EventType,
    Improvement,
    NodeResult,
    RunEvent,
    RunResult,
    RunTimings,
    Waiting,
)

Model = TypeVar("Model", bound=BaseModel)
_KNOWN_EVENTS: frozenset[str] = frozenset(get_args(EventType))


def tolerant(model: type[Model], data: Any, extra: Literal["ignore", "allow"] = "ignore") -> Model:
    """Validate, at every depth, without the fields that this version does not know; "allow" keeps them.

    Raises InternalError for what is no such answer.
    """
    try:
        return model.model_validate(data, extra=extra)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        complaint = f"{place}: {first['msg']}" if place else first["msg"]
        raise InternalError(
            f"the runtime's answer is no {model.__name__} ({complaint}); is it of another version?"
        ) from None


def run_event(data: Any) -> RunEvent:
    """One event of a run; a type that only newer runtimes know is handed on as it is."""
    if not isinstance(data, Mapping) or data.get("type") in _KNOWN_EVENTS:
        return tolerant(RunEvent, data)
    known = tolerant(RunEvent, {**data, "type": "run.queued"})
    return known.model_copy(update={"type": str(data.get("type"))})


def _none_is_empty(value: Any) -> Any:
    return () if value is None else value


# A validator's own InternalError passes through pydantic as it is.
_AnyEvent = Annotated[RunEvent, BeforeValidator(run_event)]
_Asked = BeforeValidator(_none_is_empty)


class TolerantAnswer(BaseModel):
    """Newer runtimes may add fields and states; a client must not fall over them."""

    model_config = ConfigDict(frozen=True, extra="allow")


class PartState(TolerantAnswer):
    """One thing that loads: a model, the remote adapter, the front door."""

    state: str = "unknown"
    reason: str | None = None


class Readiness(TolerantAnswer):
    """GET /api/ready. ``parts`` is empty without the key."""

    status: Literal["ready", "loading", "failed"]
    parts: dict[str, PartState] = {}


class SystemFacts(TolerantAnswer):
    """GET /api/system. What is measured depends on the machine, the engines and the database."""

    version: str
    instance: str = ""
    deployments: dict[str, Any] = {}
    gateway: dict[str, Any] = {}
    ingress: dict[str, Any] = {}
    store: dict[str, Any] = {}
    machine: dict[str, Any] = {}


class RunState(TolerantAnswer):
    """A run and what it is doing now."""

    run_id: str
    status: str

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more by itself or by a human's answer."""
        return self.status in TERMINAL_STATUSES


class RunSummary(RunState):
    """A run that was accepted. ``created_at`` is in seconds since the epoch."""

    flow: str = ""
    flow_version: str = ""
    created_at: float | None = None
    parent: str | None = None
    links: dict[str, str] = {}


class RunRow(RunSummary):
    """A run in a list: ``prompt`` and ``answer`` are cut to their first 200 characters."""

    priority: int = 0
    user: str = ""
    conversation_id: str | None = None
    attempts: int = 0
    deaths: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    last_seq: int = 0
    waiting: Waiting | None = None
    prompt: str = ""
    answer: str | None = None
    usage: Usage | None = None
    error: ErrorFact | None = None

    @property
    def duration_s(self) -> float | None:
        """Seconds from its first start to its end; None while it has none."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


class RunPage(TolerantAnswer):
    """One page of runs, newest first; ``next_cursor`` leads to the next, None on the last."""

    runs: tuple[RunRow, ...] = ()
    next_cursor: str | None = None


class CheckpointFact(TolerantAnswer):
    """A step that a fork can begin from. ``next`` are the nodes that would run."""

    checkpoint_id: str
    parent_id: str | None = None
    step: int | None = None
    next: tuple[str, ...] = ()


class GivenFeedback(TolerantAnswer):
    """A rating from 0 to 1 that a user gave."""

    rating: float
    comment: str | None = None
    user: str = ""


class RunDetail(RunRow):
    """A run with everything that is known of it, also while it is under way.

    ``result`` is there once it ended; until then nodes, usage and answer are those of the committed events.
    ``execution_log`` has the durable events; ``state`` the channels of the last checkpoint, and ``next`` the
    nodes that come after it, where asked for.
    """

    request_id: str = ""
    cancel_requested: bool = False
    request: dict[str, Any] = {}
    result: RunResult | None = None
    nodes: tuple[NodeResult, ...] = ()
    timings: RunTimings | None = None
    improvement: Improvement | None = None
    artifact: str | None = None
    cost_usd: float | None = None
    execution_log: Annotated[tuple[_AnyEvent, ...], _Asked] = ()
    state: dict[str, Any] | None = None
    next: Annotated[tuple[str, ...], _Asked] = ()
    checkpoints: Annotated[tuple[CheckpointFact, ...], _Asked] = ()
    feedback: tuple[GivenFeedback, ...] = ()

    @property
    def outcome(self) -> RunResult:
        """The result, or what stands for it while there is none."""
        if self.result is not None:
            return self.result
        facts: dict[str, Any] = {
            "run_id": self.run_id,
            "flow": self.flow,
            "flow_version": self.flow_version,
            "status": self.status,
            "answer": self.answer or "",
            "nodes": self.nodes,
            "artifact": self.artifact,
            "request_id": self.request_id,
            "error": self.error,
            "waiting": self.waiting,
            "usage": self.usage or Usage(),
            "timings": self.timings or RunTimings(),
            "improvement": self.improvement or Improvement(),
        }
        return RunResult.model_construct(**facts)


class RunFilters(TypedDict, total=False):
    """Which runs to list. Times are seconds since the epoch or ISO 8601; ``limit`` is a page's, 1 to 200."""

    status: str | tuple[str, ...]
    flow: str
    user: str
    conversation_id: str
    parent: str
    created_after: float | str
    created_before: float | str
    limit: int


class HealthPart(TolerantAnswer):
    """One part of the health score: its own score, what it weighs, the figure and its reason."""

    score: float
    weight: float = 1.0
    value: Any = None
    why: str = ""


class HealthScore(TolerantAnswer):
    """How well the runtime does, from 0.0 to 1.0, and of what that is made."""

    score: float
    parts: dict[str, HealthPart] = {}


def generation_result(data: Any) -> GenerationResult:
    """A model's whole answer."""
    return tolerant(GenerationResult, data)


def run_result(data: Any) -> RunResult:
    """A run's whole answer."""
    return tolerant(RunResult, data)


def chunk(data: Any) -> GenerationChunk:
    """A piece of a streamed answer."""
    return tolerant(GenerationChunk, data)
