"""What the runtime answers, as the client hands it on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from registries.contracts.generation import GenerationChunk, GenerationResult
from registries.contracts.runs import RunEvent, RunResult


class _Answer(BaseModel):
    """Newer runtimes may add fields; a client must not fall over them."""

    model_config = ConfigDict(frozen=True, extra="allow")


class PartState(_Answer):
    """One thing that loads: a model, the remote adapter, the front door."""

    state: str = "unknown"
    reason: str | None = None


class Readiness(_Answer):
    """GET /api/ready. ``parts`` is empty without the key."""

    status: Literal["ready", "loading", "failed"]
    parts: dict[str, PartState] = {}


def tolerant(model: type[BaseModel], data: Any) -> Any:
    """Validate after leaving out top-level fields that this version of the contract does not know."""
    known = {name: value for name, value in data.items() if name in model.model_fields}
    return model.model_validate(known)


def run_result(data: Any) -> RunResult:
    """A run's whole answer."""
    result: RunResult = tolerant(RunResult, data)
    return result


def generation_result(data: Any) -> GenerationResult:
    """A model's whole answer."""
    result: GenerationResult = tolerant(GenerationResult, data)
    return result


def run_event(data: Any) -> RunEvent:
    """One event of a run."""
    event: RunEvent = tolerant(RunEvent, data)
    return event


def chunk(data: Any) -> GenerationChunk:
    """A piece of a streamed answer."""
    piece: GenerationChunk = tolerant(GenerationChunk, data)
    return piece
