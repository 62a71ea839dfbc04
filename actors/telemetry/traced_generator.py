"""A span around every model call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol, cast

from opentelemetry.trace import Span, get_current_span

from actors.telemetry.tracing import start_span
from flows.ports import Generator
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult


class Gateway(Generator, Protocol):
    """A Generator that can describe itself."""

    def snapshot(self) -> Mapping[str, Any]:
        """Breakers and calls under way, for operators."""
        ...


class TracedGenerator:
    """Generator port around another: the span is a child of the current one.

    Where there is no current span (an expert's worker), ``metadata["traceparent"]`` names the parent.
    """

    def __init__(self, inner: Generator) -> None:
        self._inner = inner

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """See Generator."""
        with start_span("chat", _parent(request), _asked(request)) as span:
            result = await self._inner.generate(request)
            _answered(span, result)
            return result

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        """See Generator; the span ends with the stream, also when its reader goes away."""
        with start_span("chat", _parent(request), _asked(request)) as span:
            inner = cast(
                AsyncGenerator[GenerationChunk | GenerationResult, None], self._inner.stream(request)
            )
            async with aclosing(inner) as items:
                async for item in items:
                    if isinstance(item, GenerationResult):
                        _answered(span, item)
                    yield item

    def resolve_model(self, request: GenerationRequest) -> str:
        """See Generator."""
        return self._inner.resolve_model(request)


class TracedGateway(TracedGenerator):
    """The same around a whole gateway, for the front door."""

    def __init__(self, inner: Gateway) -> None:
        super().__init__(inner)
        self._gateway = inner

    def snapshot(self) -> Mapping[str, Any]:
        """The gateway's own."""
        return self._gateway.snapshot()


def _parent(request: GenerationRequest) -> str | None:
    if get_current_span().get_span_context().is_valid:
        return None
    return request.metadata.get("traceparent")


def _asked(request: GenerationRequest) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": request.model_key,
        "gen_ai.request.max_tokens": request.max_tokens,
        "parley.request_id": request.request_id or None,
        "workflow.id": request.metadata.get("run_id"),
        "workflow.type": request.metadata.get("flow"),
        "workflow.node": request.metadata.get("node"),
    }


def _answered(span: Span, result: GenerationResult) -> None:
    span.set_attribute("gen_ai.response.model", result.model_resolved)
    span.set_attribute("gen_ai.provider.name", result.source)
    span.set_attribute("gen_ai.usage.input_tokens", result.usage.prompt_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", result.usage.completion_tokens)
    span.set_attribute("gen_ai.response.finish_reasons", [result.finish_reason])
    span.set_attribute("parley.attempts", len(result.attempts))
