from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.telemetry.traced_generator import TracedGateway, TracedGenerator
from actors.telemetry.tracing import start_span
from registries.contracts.errors import ProviderError
from registries.contracts.generation import GenerationChunk, GenerationRequest
from tests.unit.actors.telemetry.test_tracing import PARENT, read, spans
from tests.unit.flows.fakes import FakeGenerator

__all__ = ["spans"]
REQUEST = GenerationRequest(
    prompt="What?", model_key="nano-m", metadata={"traceparent": PARENT, "run_id": "r", "node": "creator"}
)


async def test_a_call_is_a_span_under_the_parent_in_its_metadata(spans: Path) -> None:
    result = await TracedGenerator(FakeGenerator()).generate(REQUEST)
    (span,) = read(spans)
    assert span["name"] == "chat" and span["parent_id"] == PARENT.split("-")[2]
    attributes = span["attributes"]
    assert isinstance(attributes, dict)
    assert attributes["workflow.node"] == "creator"
    assert attributes["gen_ai.usage.output_tokens"] == result.usage.completion_tokens
    assert "What?" not in json.dumps(span)


async def test_the_current_span_comes_first_and_a_stream_is_one_span(spans: Path) -> None:
    with start_span("node"):
        items = [item async for item in TracedGenerator(FakeGenerator()).stream(REQUEST)]
    assert isinstance(items[0], GenerationChunk)
    chat, node = read(spans)
    assert chat["parent_id"] == node["span_id"] and chat["status"] == "UNSET"


async def test_a_failed_call_is_an_error_span(spans: Path) -> None:
    with pytest.raises(ProviderError):
        await TracedGenerator(FakeGenerator(answer=lambda _: ProviderError("private"))).generate(REQUEST)
    (span,) = read(spans)
    assert span["status"] == "ERROR" and "private" not in json.dumps(span)


async def test_a_gateway_still_describes_itself_and_resolves() -> None:
    class Whole(FakeGenerator):
        def snapshot(self) -> dict[str, int]:
            return {"in_flight": 0}

    traced = TracedGateway(Whole())
    assert traced.snapshot() == {"in_flight": 0}
    assert traced.resolve_model(REQUEST) == "nano-m"
