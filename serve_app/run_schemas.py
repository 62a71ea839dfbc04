"""Bodies and answers of /api/runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from registries.contracts.frozen import Frozen, refuse_boolean
from registries.contracts.generation import MAX_PROMPT_CHARS, Usage
from registries.contracts.runs import (
    Decision,
    ErrorFact,
    Feedback,
    Improvement,
    NodeResult,
    RunEvent,
    RunResult,
    RunStatus,
    RunTimings,
    Waiting,
)
from serve_app.schemas import AnsweredRunRequest

RunMode = Literal["background", "wait", "stream"]


class CreateRunRequest(AnsweredRunRequest):
    """Body of POST /api/runs and /api/runs/stream: a RunRequest, and how to answer it."""

    mode: RunMode | None = None

    @property
    def answer_mode(self) -> RunMode:
        """``background`` unless it says otherwise."""
        return self.mode or ("stream" if self.stream else "background")


class _GoesOn(Frozen):
    """What bodies have in common that put a run into the queue again."""

    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    mode: RunMode = "background"

    _numbers = field_validator("deadline_s", mode="before")(refuse_boolean)


class RestartRequest(_GoesOn):
    """Body of POST /api/runs/{run_id}/restart; all of it may be left out."""


class ResumeRequest(_GoesOn):
    """Body of POST /api/runs/{run_id}/resume: what a human decides.

    ``interrupt_id`` names the question that was read (``waiting.interrupt_id``); without it the decision
    answers whatever the run asks when it comes.
    """

    action: Literal["approve", "edit", "reject"]
    interrupt_id: str | None = Field(default=None, min_length=1, max_length=200)
    text: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    comment: str | None = Field(default=None, max_length=10_000)

    @model_validator(mode="after")
    def _is_a_decision(self) -> ResumeRequest:
        self.decision()
        return self

    def decision(self) -> Decision:
        """As the store takes it. Raises ValueError when ``text`` and ``action`` do not fit."""
        return Decision(
            action=self.action, text=self.text, comment=self.comment, interrupt_id=self.interrupt_id or ""
        )


class ForkRequest(Frozen):
    """Body of POST /api/runs/{run_id}/fork; all of it may be left out.

    ``state`` replaces channels of the checkpoint, ``request`` fields of the run's request.
    """

    checkpoint_id: str | None = Field(default=None, max_length=200)
    state: dict[str, Any] = Field(default_factory=dict)
    request: dict[str, Any] = Field(default_factory=dict)
    mode: RunMode = "background"


class FeedbackRequest(Feedback):
    """Body of POST /api/runs/{run_id}/feedback."""

    _numbers = field_validator("rating", mode="before")(refuse_boolean)


class RunLinks(BaseModel):
    """Paths of a run."""

    self: str
    events: str
    cancel: str


class RunSummary(BaseModel):
    """A run that was accepted. ``created_at`` in seconds since the epoch."""

    run_id: str
    status: RunStatus
    flow: str
    flow_version: str
    created_at: float
    parent: str | None = None
    links: RunLinks


class _StoredRun(BaseModel):
    """What lists and details of runs share; times in seconds since the epoch."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    status: RunStatus
    flow: str
    flow_version: str
    priority: int
    user: str
    conversation_id: str | None = None
    parent: str | None = None
    attempts: int
    deaths: int
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float
    last_seq: int
    request: dict[str, Any]
    waiting: Waiting | None = None
    error: ErrorFact | None = None


class RunRow(_StoredRun):
    """A run in a list: prompt and answer by their first 200 characters."""

    prompt: str
    answer: str
    usage: Usage | None = None


class RunList(BaseModel):
    """GET /api/runs. ``next_cursor`` asks for the next page; null on the last."""

    runs: list[RunRow]
    next_cursor: str | None = None


class CheckpointFact(BaseModel):
    """A state that a run can be forked from. ``next`` names the nodes that would run."""

    checkpoint_id: str
    parent_id: str | None = None
    step: int | None = None
    created_at: float
    next: list[str]


class GivenFeedback(BaseModel):
    """A user's rating of a run."""

    user: str
    rating: float
    comment: str | None = None
    created_at: float


class RunDetail(_StoredRun):
    """GET /api/runs/{run_id}. Before its end, ``nodes`` and ``usage`` are of what was committed so far."""

    result: RunResult | None = None
    answer: str
    nodes: list[NodeResult]
    usage: Usage
    cost_usd: float
    timings: RunTimings | None = None
    improvement: Improvement
    artifact: str | None = None
    feedback: list[GivenFeedback]
    execution_log: list[RunEvent] | None = None
    state: dict[str, Any] | None = None
    next: list[str] | None = None
    checkpoints: list[CheckpointFact] | None = None


class CancelAnswer(BaseModel):
    """POST /api/runs/{run_id}/cancel; ``running`` while its runner is being stopped."""

    run_id: str
    status: RunStatus


class FeedbackAnswer(BaseModel):
    """POST /api/runs/{run_id}/feedback."""

    run_id: str
    rating: float
    comment: str | None = None


class RunUpdate(BaseModel):
    """A message of /ws/runs/{run_id}. The first has the whole log so far, later ones what is new."""

    type: Literal["run_update"] = "run_update"
    run_id: str
    status: RunStatus
    execution_log: list[RunEvent]
