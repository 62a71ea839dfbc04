"""The front door in process: real app, real catalog, played gateway, runner, store and cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from actors.running.ports import SystemClock
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, StoreError
from registries.contracts.generation import (
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
    Timings,
    Usage,
)
from registries.contracts.runs import RunEvent, RunOrder, RunResult
from registries.loader import load_catalog
from serve_app.http_api import create_api
from serve_app.run_dispatch import RunDispatch
from serve_app.services import Services

KEY = "k" * 43
Item = GenerationChunk | GenerationResult
CATALOG = load_catalog()


def generation(text: str = "85") -> GenerationResult:
    return GenerationResult(
        text=text,
        tokens_generated=2,
        timings=Timings(inference_time=0.01, total=0.01),
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        source="local",
        model_resolved="nano-m",
    )


@dataclass
class PlayedGateway:
    """Answers with ``chunks``; ``error`` comes first, or after them with ``late``; ``gate`` holds it up."""

    chunks: tuple[str, ...] = ("8", "5")
    error: Exception | None = None
    late: bool = False
    gate: asyncio.Event | None = None
    seen: list[GenerationRequest] = field(default_factory=list)
    cancelled: int = 0
    closed: int = 0

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self.seen.append(request)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return generation("".join(self.chunks)).model_copy(update={"request_id": request.request_id})

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Item]:
        self.seen.append(request)
        try:
            if self.error is not None and not self.late:
                raise self.error
            for text in self.chunks:
                yield GenerationChunk(text=text)
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            yield generation("".join(self.chunks))
        finally:
            self.closed += 1

    def resolve_model(self, request: GenerationRequest) -> str:
        return request.model_key or "nano-m"

    def snapshot(self) -> Mapping[str, Any]:
        return {"breakers": {}}


def run_result(order: RunOrder, **values: Any) -> RunResult:
    flow = CATALOG.flows.get(order.request.flow_type)
    facts: dict[str, Any] = {"status": "completed", "answer": "85", "request_id": order.request_id}
    return RunResult(run_id=order.run_id, flow=flow.name, flow_version=flow.version, **{**facts, **values})


def run_event(order: RunOrder, seq: int, type: str, node: str | None = None, **data: Any) -> RunEvent:
    values = {"run_id": order.run_id, "seq": seq, "time": 1.0, "type": type, "node": node, "data": data}
    return RunEvent.model_validate({**values, "attempt": order.attempt})


def plain_story(order: RunOrder) -> list[list[RunEvent]]:
    end = run_result(order).model_dump(mode="json")
    return [
        [run_event(order, 1, "run.started"), run_event(order, 2, "node.started", "creator")],
        [run_event(order, 2, "node.token", "creator", text="85")],
        [run_event(order, 3, "node.completed", "creator"), run_event(order, 4, "run.completed", result=end)],
    ]


Story = Callable[[RunOrder], Sequence[Sequence[RunEvent]] | Exception]


@dataclass
class PlayedRunner:
    """Tells ``story``; an exception in its place, or ``lost`` after ``lost_after`` batches, is raised."""

    story: Story = plain_story
    errors: list[Exception] = field(default_factory=list)
    lost_after: int = 0
    gate: asyncio.Event | None = None
    orders: list[RunOrder] = field(default_factory=list)
    left: int = 0

    async def run(self, order: RunOrder) -> AsyncIterator[Sequence[RunEvent]]:
        self.orders.append(order)
        finished = False
        try:
            error = self.errors.pop(0) if self.errors else None
            if error is not None and self.lost_after == 0:
                raise error
            story = self.story(order)
            assert not isinstance(story, Exception)
            for index, batch in enumerate(story):
                if error is not None and index == self.lost_after:
                    raise error
                if index and self.gate is not None:
                    await self.gate.wait()
                yield batch
            finished = True
        finally:
            self.left += not finished


@dataclass
class PlayedStore:
    """Rows by run_id, in memory."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    down: bool = False

    async def accept(self, order: RunOrder, flow_version: str) -> None:
        if self.down:
            raise StoreError("the database cannot be reached", retry_after_s=1.0)
        self.rows[order.run_id] = {
            "run_id": order.run_id,
            "status": "queued",
            "flow": order.request.flow_type,
            "request": order.request.model_dump(mode="json"),
            "result": None,
        }

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool:
        row = self.rows[run_id]
        if row["result"] is not None:
            return False
        row.update(status=result.status, result=result.model_dump(mode="json"), events=list(events))
        return True

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        row = self.rows.get(run_id)
        return None if row is None else {k: v for k, v in row.items() if k != "events"}


@dataclass
class PlayedCluster:
    """Fixed facts; ``error`` is raised by every question."""

    status: str = "ready"
    error: Exception | None = None

    async def readiness(self) -> Mapping[str, Any]:
        self._fail()
        parts = {
            "nano-m": {"state": "ready"},
            "nano-s": {"state": "failed", "reason": "no weights", "kind": "model"},
        }
        return {"status": self.status, "parts": parts}

    async def deployments(self) -> Mapping[str, Any]:
        self._fail()
        return {"parley": {"Ingress": {"replicas": 1}}}

    async def machine(self) -> Mapping[str, Any]:
        return {"cpu_percent": 3.0}

    async def metrics_page(self) -> str:
        return "workflow_executions_total 1\n"

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class PlayedMetrics:
    """Remembers what was counted."""

    counted: list[str] = field(default_factory=list)

    def record_run_queued(self) -> None:
        self.counted.append("queued")

    def record_rejected(self, reason: str) -> None:
        self.counted.append(f"rejected {reason}")

    def record_error(self, code: str) -> None:
        self.counted.append(f"error {code}")


@dataclass
class FrontDoor:
    """The app and everything behind it."""

    gateway: PlayedGateway
    runner: PlayedRunner
    store: PlayedStore
    cluster: PlayedCluster
    metrics: PlayedMetrics
    dispatch: RunDispatch
    app: Any
    client: httpx.AsyncClient


@contextlib.asynccontextmanager
async def front_door(**settings: Any) -> AsyncIterator[FrontDoor]:
    """A running front door; the client carries the key."""
    config = RuntimeConfig(home="unused", api_key=KEY, **settings)
    gateway, runner, store, cluster = PlayedGateway(), PlayedRunner(), PlayedStore(), PlayedCluster()
    ids = iter(f"run-{number}" for number in range(1, 1000))
    metrics = PlayedMetrics()
    dispatch = RunDispatch(config, CATALOG, store, runner, SystemClock(), metrics, lambda: next(ids), 0.05)
    services = Services(
        config=config,
        catalog=CATALOG,
        gateway=gateway,
        runs=dispatch,
        run_reader=store,
        cluster=cluster,
        metrics=metrics,
        mermaid=lambda flow: f"graph TD;\n  {flow.name}",
        version="1.2.3",
    )
    app = create_api(services)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://t", headers={"x-api-key": KEY}
    ) as client:
        try:
            yield FrontDoor(gateway, runner, store, cluster, metrics, dispatch, app, client)
        finally:
            await dispatch.aclose()


def events_of(text: str) -> list[tuple[str, str | None, Any]]:
    """(event, id, data) of an SSE body; comments left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for a condition, at most ``within_s``."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)


def full_house() -> CapacityError:
    return CapacityError("the runner's queue is full", retry_after_s=2.0)
