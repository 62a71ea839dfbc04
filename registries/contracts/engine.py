"""The one contract that every source of tokens fulfils: engines, replicas, remote adapters.

A policy (retry, breaker, cache) is a wrapper around ``Completer``, never a flag of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from registries.contracts.generation import Attachment, FinishReason, GenerationChunk, Message

REPLICA_LOST = "replica_lost"
"""Context flag of a ProviderError: what held the local model has died, its process or its engine.

Serve replaces it, so its breaker must not rest for a minute.
"""


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One resolved call: every choice is made, nothing is optional that an engine would have to guess.

    ``model`` is the name the engine knows (a folder, a Hugging Face id, a provider's model name).
    ``model_key`` is its registry entry, for engines that answer for several: two may share a name.
    ``deadline_s`` is the remaining time in seconds. Provider keys are no part of a call: the engine has them.
    """

    request_id: str
    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    deadline_s: float = 60.0
    metadata: dict[str, str] = field(default_factory=dict)
    traceparent: str | None = None
    model_key: str = ""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """A whole answer. ``cost_micro_usd`` only where the engine knows prices that the registry does not."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    first_token_s: float | None = None
    cost_micro_usd: int | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What autoscaling, /api/system and health look at. ``kv_cache_use`` is a fraction 0–1."""

    running: int = 0
    waiting: int = 0
    kv_cache_use: float = 0.0
    vram_used_gb: float = 0.0
    vram_free_gb: float | None = None


class Completer(Protocol):
    """Anything that turns an EngineCall into text.

    Errors: ProviderError (with its fault), ValidationError, CapacityError, BudgetError (deadline).
    Cancellation: cancelling the awaiting task, or closing the iterator, aborts the call down to the
    engine's slot; ``abort`` does it by request id from outside and is idempotent.
    """

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer."""
        ...

    def stream(self, call: EngineCall) -> AsyncIterator[GenerationChunk | EngineResult]:
        """Chunks, then exactly one EngineResult whose text equals the chunks together."""
        ...

    async def abort(self, request_id: str) -> None:
        """Free the slot of this call; unknown ids are ignored."""
        ...


class Engine(Completer, Protocol):
    """A Completer with a life: it loads, reports, drains and ends."""

    async def start(self) -> None:
        """Load what is needed; raises ValidationError (missing folder) or CapacityError (does not fit)."""
        ...

    async def check_health(self) -> None:
        """Raise ProviderError when the engine cannot make progress."""
        ...

    def stats(self) -> EngineStats:
        """Cheap, synchronous, never blocks."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls with CapacityError and wait for the running ones, at most timeout_s."""
        ...

    async def shutdown(self) -> None:
        """End every process and connection; idempotent."""
        ...
