"""What travels over HTTP beyond the contracts: request bodies, lists, and the error's shape."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunRequest
from registries.specs import FlowSpec, ModelSpec, StrategySpec

_OUTSIDE_GENERATION = frozenset({"stream", "cache"})
_OUTSIDE_RUN = frozenset({"stream", "mode"})


class InferenceRequest(GenerationRequest):
    """Body of POST /api/inference: a GenerationRequest, and how to answer it.

    ``cache`` says whether a cached answer would be welcome. There is no response cache yet, so every
    answer says ``cache_hit: false``.
    """

    stream: bool = False
    cache: bool = True

    def generation(self, request_id: str) -> GenerationRequest:
        """The call without the HTTP part, under our request id."""
        values = {name: getattr(self, name) for name in GenerationRequest.model_fields}
        values["request_id"] = request_id
        given = self.model_fields_set - _OUTSIDE_GENERATION | {"request_id"}
        return GenerationRequest.model_construct(given, **values)


class AnsweredRunRequest(RunRequest):
    """A RunRequest, and how to answer it.

    ``stream: true`` is the short form of ``mode: "stream"``; the two must not contradict each other.
    """

    mode: str | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _one_mode(self) -> AnsweredRunRequest:
        if self.mode is not None and self.stream is not None and self.stream != (self.mode == "stream"):
            stream = str(self.stream).lower()
            raise ValueError(f"stream: {stream} contradicts mode: {self.mode!r}; give one of them")
        return self

    def run_request(self) -> RunRequest:
        """The run without the HTTP part."""
        values = {name: getattr(self, name) for name in RunRequest.model_fields}
        return RunRequest.model_construct(self.model_fields_set - _OUTSIDE_RUN, **values)


class OrchestrateRequest(AnsweredRunRequest):
    """Body of POST /api/orchestrate: a RunRequest, waited for or streamed."""

    mode: Literal["wait", "stream"] | None = None

    @property
    def answer_mode(self) -> Literal["wait", "stream"]:
        """``wait`` unless it says otherwise."""
        return self.mode or ("stream" if self.stream else "wait")


class ErrorDetail(BaseModel):
    """One error. ``param`` names the field, file or thing at fault; ``fault`` classes a provider's fault."""

    code: str
    message: str
    param: str | None = None
    request_id: str
    retryable: bool
    fault: str | None = None
    retry_after_s: float | None = None


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail


class TokenEvent(BaseModel):
    """Data of ``event: token`` in direct mode: some tokens' text."""

    text: str


class ModelEntry(ModelSpec):
    """A registry entry and whether it can answer now (``state`` as in /api/ready)."""

    state: str = Field(description="ready, loading, failed, remote or disabled")
    reason: str | None = None


class ModelList(BaseModel):
    """GET /api/models. ``tiers`` maps a tier to its model_key."""

    models: list[ModelEntry]
    tiers: dict[str, str]


class StrategyList(BaseModel):
    """GET /api/strategies."""

    strategies: list[StrategySpec]
    default: str


class FlowSummary(BaseModel):
    """A flow in the list: enough to call it."""

    name: str
    version: str
    description: str
    input: tuple[str, ...]
    roles: list[str]


class FlowList(BaseModel):
    """GET /api/flows."""

    flows: list[FlowSummary]


class FlowDetail(FlowSummary):
    """GET /api/flows/{name}: the whole declaration and a Mermaid drawing of its graph."""

    spec: FlowSpec
    mermaid: str


class HealthAnswer(BaseModel):
    """GET /api/health: this process answers."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyAnswer(BaseModel):
    """GET /api/ready. Only ``status`` without the key; ``parts`` tells what loads or failed, and why."""

    status: Literal["ready", "loading", "failed"]
    parts: dict[str, Any] | None = None


class SystemAnswer(BaseModel):
    """GET /api/system. Units: GB, percent, seconds where a name says so."""

    version: str
    instance: str
    deployments: dict[str, Any]
    gateway: dict[str, Any]
    ingress: dict[str, Any]
    store: dict[str, Any]
    machine: dict[str, Any]
