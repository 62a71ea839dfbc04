"""All that a node can see of the world. Each port is implemented in actors/, and by fakes in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult, Message
from registries.contracts.runs import EventType, NodeResult


class Generator(Protocol):
    """Models. Errors: the tree of registries.contracts.errors. Cancelling the caller aborts the call."""

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """The whole answer."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        """Chunks, then exactly one result with the whole text."""
        ...

    def resolve_model(self, request: GenerationRequest) -> str:
        """The model_key that the request would go to first; raises NotFound or CapacityError."""
        ...


class EventSink(Protocol):
    """Where a run's events go. Never blocks the node for a slow reader."""

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        """Report one event; the holder of the run gives it its seq."""
        ...


class Resources(Protocol):
    """What the machine has left."""

    async def vram(self) -> Mapping[str, Any]:
        """``{"available_gb": float | None, "limit_gb": float, "gpus": int}``; None without a GPU."""
        ...


class History(Protocol):
    """Earlier turns of a conversation."""

    async def read(self, conversation_id: str, limit: int) -> list[Message]:
        """Newest last; empty when there is nothing."""
        ...


class Placement(Protocol):
    """Runs a node elsewhere: one Ray task an expert (see NodeSpec.placement)."""

    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        """Run the node that ``payload`` (JSON, see flows.nodes) describes; cancelling cancels it there."""
        ...


class Clock(Protocol):
    """Time, injected."""

    def monotonic(self) -> float:
        """Seconds, for intervals."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, for people."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait without blocking."""
        ...
