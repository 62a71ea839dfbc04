"""Keeps engine processes alive while they are killed: the part that Ray plays in a cluster.

A forkserver that has imported everything makes a new engine in some tens of milliseconds, so that a test can
afford fifty deaths.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from actors.stores.records import NewRun
from actors.stores.store import Store
from registries.contracts.runs import TERMINAL_STATUSES, RunOrder, RunRequest
from registries.loader import load_catalog
from tests.chaos.engine.process import EngineSpec, Fate, run_engine

CATALOG = load_catalog()
_POLL_S = 0.02


def _engine_main(spec_text: str) -> None:
    sys.stdout = sys.stderr
    asyncio.run(run_engine(EngineSpec.load(spec_text)))


class Stage:
    """``fates`` are given to the engines one after another, also to those that replace dead ones."""

    def __init__(self, spec: EngineSpec, engines: int, fates: Sequence[Fate] = ()) -> None:
        self.spec = spec
        self.kills = 0
        self.engines: list[BaseProcess] = []
        self._wanted = engines
        self._fates = list(fates)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.chaos.engine.stage"])

    @property
    def journal(self) -> Path:
        return Path(self.spec.journal)

    def start_one(self) -> BaseProcess:
        """One more engine, with the next fate."""
        fate = self._fates.pop(0) if self._fates else Fate()
        engine = self._context.Process(target=_engine_main, args=(replace(self.spec, fate=fate).dump(),))
        engine.start()
        self.engines.append(engine)
        return engine

    async def keep_alive(self) -> None:
        """Until cancelled: as many engines as wanted; a dead one is replaced."""
        while True:
            for engine in list(self.engines):
                if engine.is_alive():
                    continue
                self.engines.remove(engine)
                if engine.exitcode == -signal.SIGKILL:
                    self.kills += 1
                elif engine.exitcode != 0:
                    raise AssertionError(f"an engine ended by itself with status {engine.exitcode}")
            while len(self.engines) < self._wanted:
                self.start_one()
            await asyncio.sleep(_POLL_S)

    def kill_all(self) -> None:
        """SIGKILL for every engine at once."""
        for engine in self.engines:
            if engine.pid is not None and engine.is_alive():
                os.kill(engine.pid, signal.SIGKILL)
        for engine in self.engines:
            engine.join(10)
        self.engines.clear()

    async def end(self) -> None:
        """SIGTERM and wait; SIGKILL for what stays."""
        for engine in self.engines:
            if engine.is_alive():
                engine.terminate()
        for engine in self.engines:
            await asyncio.to_thread(engine.join, 10)
            if engine.is_alive():
                engine.kill()
                engine.join(5)
                raise AssertionError("an engine did not end when it was told to")


@asynccontextmanager
async def engines(spec: EngineSpec, count: int, fates: Sequence[Fate] = ()) -> AsyncIterator[Stage]:
    """A stage whose engines are kept alive; ended after."""
    stage = Stage(spec, count, fates)
    keeping = asyncio.create_task(stage.keep_alive())
    try:
        yield stage
        if keeping.done():
            keeping.result()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await stage.end()


def new_run(number: int, flow: str = "challenge", deadline_s: float = 600.0, **request: object) -> NewRun:
    """A run of that number; ids sort by it."""
    asked = RunRequest.model_validate({"prompt": "What is 48 + 37?", "flow_type": flow, **request})
    order = RunOrder(
        run_id=f"run-{number:05d}", request_id=f"req-{number}", request=asked, deadline_s=deadline_s
    )
    spec = CATALOG.flows.get(flow)
    return NewRun(order, spec.version, spec.model_dump(mode="json"))


async def all_ended(
    store: Store, run_ids: Sequence[str], timeout_s: float, also: Callable[[], None] = lambda: None
) -> None:
    """Wait until every run has ended; ``also`` is called at each look."""
    left = set(run_ids)
    async with asyncio.timeout(timeout_s):
        while left:
            also()
            for run_id in list(left):
                run = await store.get(run_id, "default")
                if run is not None and run["status"] in TERMINAL_STATUSES:
                    left.discard(run_id)
                else:
                    break
            await asyncio.sleep(0.05)
