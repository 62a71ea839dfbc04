"""The front door in process: real app, catalog and store; played gateway, runner and cluster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from actors.running.ports import SystemClock
from actors.stores.open_store import open_store
from actors.stores.records import RunFilter
from actors.stores.store import Store
from flows.builder import FlowGraphs
from registries.contracts.config import RuntimeConfig
from registries.contracts.generation import (
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
    Timings,
    Usage,
)
from serve_app.http_api import create_api
from serve_app.keyed_calls import KeyedCalls
from serve_app.run_dispatch import RunDispatch
from serve_app.services import Services
from tests.machine_pace import paced
from tests.unit.serve_app.scripted_runner import CATALOG, ScriptedRunner

KEY = "k" * 43
Item = GenerationChunk | GenerationResult


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


class FaultyStore:
    """A real store that can be away: ``down`` is raised by every question, ``full`` by every write."""

    WRITES = frozenset(
        {"accept", "claim", "cancel", "resume", "restart", "give_feedback", "keep"}
        | {"claim_call", "keep_answer", "give_up_call"}
    )

    def __init__(self, store: Store) -> None:
        self._store = store
        self.down: Exception | None = None
        self.full: Exception | None = None
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        def call(*args: Any, **values: Any) -> Any:
            self.asked.append(name)
            if self.down is not None:
                raise self.down
            if self.full is not None and name in self.WRITES:
                raise self.full
            return real(*args, **values)

        return call


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
    runner: ScriptedRunner
    store: Any
    faults: FaultyStore
    cluster: PlayedCluster
    metrics: PlayedMetrics
    dispatch: RunDispatch
    calls: KeyedCalls
    app: Any
    client: httpx.AsyncClient

    async def rows(self) -> list[dict[str, Any]]:
        """Every run in the store, oldest first."""
        return list(reversed(await self.store.list("default", RunFilter(limit=200))))

    async def row(self, run_id: str = "run-1") -> dict[str, Any]:
        """A run that must be in the store."""
        row: dict[str, Any] | None = await self.store.get(run_id, "default")
        assert row is not None
        return row


@contextlib.asynccontextmanager
async def front_door(
    grace_s: float = 0.05, silence_s: float = 5.0, home: Path | None = None, **settings: Any
) -> AsyncIterator[FrontDoor]:
    """A running front door over a real SQLite store; the client carries the key.

    ``home``: a store that stays, so that a second front door finds what the first one left.
    """
    with tempfile.TemporaryDirectory(prefix="parley-door-") as folder:
        config = RuntimeConfig(home=str(home or folder), api_key=KEY, **settings)
        store = await open_store(config)
        try:
            async with _opened(config, store, grace_s, silence_s) as door:
                yield door
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def _opened(
    config: RuntimeConfig, store: Store, grace_s: float, silence_s: float
) -> AsyncIterator[FrontDoor]:
    gateway, runner, cluster = PlayedGateway(), ScriptedRunner(store), PlayedCluster()
    faults = FaultyStore(store)
    first = len(await store.list("default", RunFilter(limit=200))) + 1
    ids = (f"run-{number}" for number in itertools.count(first))
    metrics = PlayedMetrics()
    dispatch = RunDispatch(
        config, CATALOG, faults, runner, SystemClock(), metrics, lambda: next(ids), grace_s, silence_s
    )
    owner = f"door-{secrets.token_hex(4)}"
    calls = KeyedCalls(
        faults, gateway, metrics, owner, config.default_deadline_s, config.max_ongoing_requests
    )
    services = Services(
        config=config,
        catalog=CATALOG,
        gateway=gateway,
        calls=calls,
        runs=dispatch,
        store=faults,
        cluster=cluster,
        metrics=metrics,
        clock=SystemClock(),
        graphs=FlowGraphs(CATALOG),
        version="1.2.3",
    )
    app = create_api(services)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://t", headers={"x-api-key": KEY}
    ) as client:
        try:
            yield FrontDoor(gateway, runner, store, faults, cluster, metrics, dispatch, calls, app, client)
        finally:
            await dispatch.aclose()
            await calls.aclose()


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
    deadline = time.monotonic() + paced(within_s)
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)
