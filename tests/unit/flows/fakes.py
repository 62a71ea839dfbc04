"""Ports played by plain objects: scripted models, recorded events, a clock that only moves when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.node_context import NodePorts
from flows.nodes import run_payload
from registries.catalog import Catalog
from registries.contracts.errors import CapacityError
from registries.contracts.generation import (
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
    Message,
    Timings,
    Usage,
)
from registries.contracts.runs import EventType, NodeResult, RunOrder, RunRequest
from registries.loader import load_catalog
from registries.specs import FlowSpec, PromptSpec

Answer = Callable[[GenerationRequest], str | Exception]
PACKAGE = load_catalog()
QUESTION = "What is 48 + 37?"


def arithmetic(request: GenerationRequest) -> str:
    """nano-s is wrong, nano-m is right; critiques, repairs and mergers know the truth."""
    prompt = request.prompt
    if prompt.endswith("Check it."):
        return "I get 85. Right." if "Answer: 48 + 37 = 85" in prompt else "I get 85. Wrong."
    if prompt.endswith(("Fix it.", "Merge them.")):
        return "48 + 37 = 85"
    return "48 + 37 = 84" if request.model_key == "nano-s" else "48 + 37 = 85"


@dataclass
class FakeGenerator:
    """Answers by ``answer``; an exception it returns is raised. ``pause`` is awaited inside every call."""

    answer: Answer = arithmetic
    chosen: str | None = "nano-m"
    pause: Callable[[GenerationRequest], Any] | None = None
    cost_micro_usd: int = 0
    answered_by: str | None = None
    finish_reason: Any = "stop"
    requests: list[GenerationRequest] = field(default_factory=list)
    streamed: int = 0
    aborted: list[str] = field(default_factory=list)

    def resolve_model(self, request: GenerationRequest) -> str:
        if self.chosen is None:
            raise CapacityError("no model fits")
        return self.chosen

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self.requests.append(request)
        try:
            if self.pause is not None:
                await self.pause(request)
        except asyncio.CancelledError:
            self.aborted.append(request.request_id)
            raise
        text = self.answer(request)
        if isinstance(text, Exception):
            raise text
        used = Usage(
            prompt_tokens=len(request.prompt.split()),
            completion_tokens=len(text.split()),
            cost_micro_usd=self.cost_micro_usd,
        )
        return GenerationResult(
            text=text,
            tokens_generated=used.completion_tokens,
            timings=Timings(),
            usage=used,
            source="local",
            model_resolved=self.answered_by or request.model_key or self.resolve_model(request),
            finish_reason=self.finish_reason,
            request_id=request.request_id,
        )

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        self.streamed += 1
        result = await self.generate(request)
        for at, word in enumerate(result.text.split(" ")):
            yield GenerationChunk(text=word if at == 0 else f" {word}")
        yield result

    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]


@dataclass
class RecordedEvents:
    """Every event in order."""

    seen: list[tuple[str, str | None, dict[str, Any], int]] = field(default_factory=list)

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        json.dumps(data)
        self.seen.append((type, node, dict(data), attempt))

    def names(self, tokens: bool = False) -> list[str]:
        return [f"{type} {node}" for type, node, _, _ in self.seen if tokens or type != "node.token"]

    def tokens(self, node: str) -> str:
        return "".join(d["text"] for type, name, d, _ in self.seen if type == "node.token" and name == node)


@dataclass
class FakeResources:
    available_gb: float | None = None
    asked: int = 0

    async def vram(self) -> Mapping[str, Any]:
        self.asked += 1
        return {
            "available_gb": self.available_gb,
            "limit_gb": 6.0,
            "gpus": 0 if self.available_gb is None else 1,
        }


@dataclass
class FakeHistory:
    turns: list[Message] = field(default_factory=list)
    reads: list[tuple[str, int]] = field(default_factory=list)

    async def read(self, conversation_id: str, limit: int) -> list[Message]:
        self.reads.append((conversation_id, limit))
        return self.turns[-limit:]


@dataclass
class FakeClock:
    """Seconds pass by sleeping, or by ``tick_s`` at every look."""

    now: float = 100.0
    tick_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        self.now += self.tick_s
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class RoundTripPlacement:
    """Runs the node as another process would: only JSON goes there and comes back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.payloads: list[dict[str, Any]] = []
        self.fail_with: dict[str, Exception] = {}

    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        sent: dict[str, Any] = json.loads(json.dumps(payload))
        self.payloads.append(sent)
        if error := self.fail_with.get(sent["node"]["id"]):
            raise error
        result = await run_payload(sent, self.world.ports(), self.world.catalog)
        return NodeResult.model_validate_json(result.model_dump_json())


class World:
    """All fakes together; ``ports()`` is what nodes see."""

    def __init__(self, answer: Answer = arithmetic, catalog: Catalog = PACKAGE, **generator: Any) -> None:
        self.catalog = catalog
        self.generator = FakeGenerator(answer, **generator)
        self.events = RecordedEvents()
        self.resources = FakeResources()
        self.history = FakeHistory()
        self.clock = FakeClock()
        self.placement = RoundTripPlacement(self)
        self.stream_tokens = True

    def ports(self) -> NodePorts:
        return NodePorts(
            self.generator,
            self.events,
            self.resources,
            self.history,
            self.placement,
            self.clock,
            self.stream_tokens,
        )


def order(flow: str = "challenge", deadline_s: float = 30.0, **request: Any) -> RunOrder:
    """An order for the flow; ``request`` are fields of RunRequest."""
    asked = RunRequest(**{"prompt": QUESTION, "flow_type": flow, **request})
    return RunOrder(run_id="run-1", request_id="req-1", request=asked, deadline_s=deadline_s)


def catalog_with(*flows: FlowSpec, prompts: tuple[PromptSpec, ...] = ()) -> Catalog:
    """The package's catalog with more flows and prompts."""
    return Catalog(
        PACKAGE.models,
        PACKAGE.strategies,
        (*PACKAGE.prompts, *prompts),
        (*PACKAGE.flows, *flows),
        PACKAGE.tiers,
    )


def flow_of(**values: Any) -> FlowSpec:
    """A flow from plain values; nodes default to kind generate with the prompt ``answer``."""
    nodes = [
        {"kind": "generate", "prompt": "answer", "model": "nano-m", **node} for node in values.pop("nodes")
    ]
    defaults = {"name": "trial", "output": {"answer": [nodes[-1]["id"]]}}
    return FlowSpec.model_validate({**defaults, "nodes": nodes, **values})
