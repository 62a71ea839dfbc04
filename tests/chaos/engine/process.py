"""A runner's engine in a process of its own, without Ray: real store, leases, queue, flows; played models.

Ray only brings processes back; which run goes on, and from where, is decided by what runs here. The process
kills itself (SIGKILL) at the boundary that its ``Fate`` names, so that every boundary is hit for sure.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import json
import logging
import os
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import structlog

from actors.running.lease_keeper import LeaseKeeper
from actors.running.ports import GpuResources, SystemClock
from actors.running.run_execution import RunParts
from actors.running.run_queue import RunQueue
from actors.running.run_register import RunRegister
from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, Lease, RunWrite
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.builder import FlowGraphs
from flows.node_context import NodePorts
from flows.nodes import run_payload
from flows.ports import EventSink, Generator
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import NodeResult, RunResult
from registries.loader import load_catalog
from tests.unit.flows.fakes import PACKAGE, FakeGenerator, FakeHistory, FakeResources

Boundary = Literal[
    "claim",
    "node_start",
    "node_end",
    "checkpoint_before",
    "checkpoint_after",
    "writes_before",
    "writes_after",
    "terminal_before",
    "terminal_after",
]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
SIBLINGS: frozenset[Boundary] = frozenset({"writes_before", "writes_after"})
"""Reached where nodes run side by side: in a chain a node's writes are in the checkpoint's commit, as it."""
CHAIN: tuple[Boundary, ...] = tuple(boundary for boundary in BOUNDARIES if boundary not in SIBLINGS)
"""Those that every run reaches."""


@dataclass(frozen=True, slots=True)
class Fate:
    """Die at the ``nth`` time that ``boundary`` is reached; None lives on."""

    boundary: Boundary | None = None
    nth: int = 1


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """``journal`` gets a line for every model call that begins or ends; ``call_s`` is how long one takes.

    With ``uneven`` some take up to four times as long, each always the same: siblings end one by one.
    """

    config_json: str
    journal: str
    fate: Fate = Fate()
    slots: int = 8
    call_s: float = 0.02
    uneven: bool = False

    def dump(self) -> str:
        """As JSON, for a command line."""
        return json.dumps(asdict(self))

    def deaths(self) -> Counter[str]:
        """How often engines have killed themselves, by boundary."""
        path = Path(f"{self.journal}.deaths")
        return Counter(path.read_text(encoding="utf-8").split() if path.exists() else ())

    @property
    def begins_lock(self) -> Path:
        """See WatchedKeeper."""
        return Path(f"{self.journal}.begins")

    @classmethod
    def load(cls, text: str) -> EngineSpec:
        """From ``dump``."""
        values = json.loads(text)
        return cls(**{**values, "fate": Fate(**values["fate"])})


class Doom:
    """Counts how often the fatal boundary is passed, and leaves its name behind."""

    def __init__(self, spec: EngineSpec) -> None:
        self._fate = spec.fate
        self._left = spec.fate.nth
        self._journal = spec.journal

    def at(self, boundary: str) -> None:
        if boundary == self._fate.boundary:
            self._left -= 1
            if self._left == 0:
                with open(f"{self._journal}.deaths", "a", encoding="utf-8") as deaths:
                    deaths.write(f"{boundary}\n")
                os.kill(os.getpid(), signal.SIGKILL)


class DoomedStore:
    """The store, with the boundaries around its commits."""

    def __init__(self, inner: Any, doom: Doom) -> None:
        self._inner = inner
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def claim_next(self, owner: str, ttl_s: float, max_deaths: int, limit: int) -> list[ClaimedRun]:
        claimed: list[ClaimedRun] = await self._inner.claim_next(owner, ttl_s, max_deaths, limit)
        if claimed:
            self._doom.at("claim")
        return claimed

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        parts = [name for name, rows in (("checkpoint", write.checkpoints), ("writes", write.writes)) if rows]
        for part in parts:
            self._doom.at(f"{part}_before")
        await self._inner.commit(lease, write)
        for part in parts:
            self._doom.at(f"{part}_after")

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        self._doom.at("terminal_before")
        await self._inner.finish(lease, result, write)
        self._doom.at("terminal_after")


class JournalledModels:
    """Models whose answers follow from the request alone; every call leaves two lines in the journal."""

    def __init__(self, spec: EngineSpec, doom: Doom) -> None:
        self._inner = FakeGenerator()
        self._call_s = spec.call_s
        self._uneven = spec.uneven
        self._doom = doom
        self._journal = os.open(spec.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def resolve_model(self, request: GenerationRequest) -> str:
        return self._inner.resolve_model(request)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self._write("begin", request)
        self._doom.at("node_start")
        await asyncio.sleep(self._call_s * self._share(request))
        result = await self._inner.generate(request)
        self._write("end", request)
        self._doom.at("node_end")
        return result

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        result = await self.generate(request)
        yield GenerationChunk(text=result.text)
        yield result

    def _share(self, request: GenerationRequest) -> int:
        return 1 + zlib.crc32(request.request_id.encode()) % 4 if self._uneven else 1

    def _write(self, what: str, request: GenerationRequest) -> None:
        line = json.dumps({"what": what, "call": request.request_id, "pid": os.getpid(), "time": time.time()})
        os.write(self._journal, (line + "\n").encode())


class WatchedKeeper(LeaseKeeper):
    """Holds ``begins_lock`` from each look at a lease to the end of the step of the event loop that looks.

    A call that looks is begun, and in the journal, in that same step. Whoever stops this process while it
    has the lock itself therefore stops no call between its look and its beginning, which is the one thing
    that no runner can rule out.
    """

    def __init__(self, *parts: Any, begins_lock: Path) -> None:
        super().__init__(*parts)
        self._begins = os.open(begins_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def is_sure(self, lease: Lease) -> bool:
        fcntl.flock(self._begins, fcntl.LOCK_SH)
        asyncio.get_running_loop().call_soon(fcntl.flock, self._begins, fcntl.LOCK_UN)
        return super().is_sure(lease)


class InlinePlacement:
    """Experts in this process: placement by tasks is Ray's, and tested with Ray."""

    def __init__(self, events: EventSink, generator: Generator, catalog: Catalog) -> None:
        self._events = events
        self._generator = generator
        self._catalog = catalog

    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        ports = NodePorts(
            generator=self._generator,
            events=self._events,
            resources=FakeResources(),
            history=FakeHistory(),
            placement=self,
            clock=SystemClock(),
        )
        return await run_payload(payload, ports, self._catalog)


async def run_engine(spec: EngineSpec) -> None:
    """Until SIGTERM, which drains it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    config = RuntimeConfig.model_validate_json(spec.config_json)
    doom = Doom(spec)
    store: Any = DoomedStore(await open_store(config), doom)
    models = JournalledModels(spec, doom)
    # The shipped catalog is in the forkserver already: reading it is most of an engine's start.
    catalog = load_catalog(config) if config.catalog_dirs or config.extra_models else PACKAGE
    metrics = Metrics(NullSink(), "engine")
    parts = RunParts(
        generator=models,
        store=store,
        graphs=FlowGraphs(catalog),
        metrics=metrics,
        placement=lambda events, generator, check_held: InlinePlacement(events, generator, catalog),
        resources=GpuResources(6.0),
        outputs_root=Path(config.home) / "outputs",
        linger_s=lambda: 0.02,
    )
    loop = asyncio.get_running_loop()
    keeper = WatchedKeeper(store.open_renewer(), config.lease.ttl_s, loop, begins_lock=spec.begins_lock)
    keeper.start()
    register = RunRegister(parts, keeper, spec.slots, catalog.flows.get, lambda: queue.wake())
    queue = RunQueue(
        store,
        f"engine:{os.getpid()}",
        config.lease,
        lambda: register.free,
        lambda run, asked_at: register.begin(run, asked_at),
        metrics,
    )
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _tell_tasks)
    fetching = loop.create_task(queue.run())
    try:
        await stop.wait()
    finally:
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await register.drain(1.0)
        await asyncio.to_thread(keeper.close)
        await store.close()


def _tell_tasks() -> None:
    print(f"engine {os.getpid()}:", file=sys.stderr)
    for task in asyncio.all_tasks():
        task.print_stack()
    faulthandler.dump_traceback()
