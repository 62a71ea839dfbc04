"""The models as one held run sees them: none is called once the lease is not sure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from flows.ports import Generator
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult


class HeldGenerator:
    """Generator port around another; ``check`` raises LeaseLost when the run may be somebody else's.

    A node's beginning is checked too, but a process can be stopped between that and its call: for a burst of
    experts that is the time in which all their prompts are written.
    """

    def __init__(self, inner: Generator, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def resolve_model(self, request: GenerationRequest) -> str:
        """See Generator."""
        return self._inner.resolve_model(request)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """See Generator; raises LeaseLost."""
        self._check()
        return await self._inner.generate(request)

    def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        """See Generator; raises LeaseLost, at once."""
        self._check()
        return self._inner.stream(request)
