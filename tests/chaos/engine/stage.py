"""Keeps engine processes alive while they are killed: the part that Ray plays in a cluster.

A forkserver that has imported everything makes a new engine in some tens of milliseconds, so that a test can
afford fifty deaths.
"""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from actors.stores.store import Store
from registries.contracts.runs import TERMINAL_STATUSES
from tests.chaos.engine.checker import TENANT
from tests.chaos.engine.process import EngineSpec, Fate, run_engine
from tests.machine_pace import paced

_POLL_S = 0.02


def _engine_main(spec_text: str) -> None:
    spec = EngineSpec.load(spec_text)
    sys.stdout = sys.stderr
    faulthandler.enable()
    asyncio.run(run_engine(spec))


class Stage:
    """``fates`` are given to the engines one after another, also to those that replace dead ones."""

    def __init__(self, spec: EngineSpec, engines: int, fates: Sequence[Fate] = ()) -> None:
        self.spec = spec
        self.kills = 0
        self.started = 0
        self.engines: list[BaseProcess] = []
        self.wanted = engines
        self._fates = list(fates)
        self._seen: list[psutil.Process] = []
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
        self.started += 1
        assert engine.pid is not None
        self.engines.append(engine)
        with suppress(psutil.NoSuchProcess):
            self._seen.append(psutil.Process(engine.pid))
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
            while len(self.engines) < self.wanted:
                self.start_one()
            await asyncio.sleep(_POLL_S)

    def kill_all(self) -> None:
        """SIGKILL for every engine at once."""
        for engine in self.engines:
            if engine.pid is not None and engine.is_alive():
                os.kill(engine.pid, signal.SIGKILL)
        for engine in self.engines:
            engine.join(paced(5))
        self.engines.clear()

    async def end(self) -> None:
        """SIGTERM and wait; SIGKILL for what stays."""
        for engine in self.engines:
            if engine.is_alive():
                engine.terminate()
        for engine in self.engines:
            await asyncio.to_thread(engine.join, paced(5))
            if engine.is_alive():
                await self.tell_tasks()
                assert engine.pid is not None
                os.kill(engine.pid, signal.SIGABRT)
                engine.join(5)
                raise AssertionError("an engine did not end when it was told to")
        assert not (left := self.orphans()), f"processes that outlived their engines: {left}"

    async def tell_tasks(self) -> None:
        """Let every engine say on stderr, which a failed test shows, where its tasks and threads are."""
        for engine in self.engines:
            if engine.pid is not None and engine.is_alive():
                os.kill(engine.pid, signal.SIGUSR1)
        await asyncio.sleep(0.5)

    def orphans(self) -> list[psutil.Process]:
        """Engines that were started here and still live; they start no processes of their own."""
        alive = [process for process in self._seen if process.is_running()]
        return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@asynccontextmanager
async def engines(spec: EngineSpec, count: int, fates: Sequence[Fate] = ()) -> AsyncIterator[Stage]:
    """A stage whose engines are kept alive; ended after.

    An engine that ends by itself ends the test, with AssertionError.
    """
    stage = Stage(spec, count, fates)
    stage.journal.parent.mkdir(parents=True, exist_ok=True)
    keeping = asyncio.create_task(stage.keep_alive())
    body = asyncio.current_task()
    assert body is not None
    keeping.add_done_callback(lambda done: None if done.cancelled() else body.cancel())
    try:
        yield stage
    except BaseException:
        await stage.tell_tasks()
        raise
    finally:
        keeping.cancel()
        (fault,) = await asyncio.gather(keeping, return_exceptions=True)
        await stage.end()
        if isinstance(fault, AssertionError):
            body.uncancel()
            raise fault


async def all_ended(store: Store, run_ids: Sequence[str], timeout_s: float) -> None:
    """Wait until every run has ended; AssertionError says which have not, and how far they came."""
    left = set(run_ids)
    deadline = time.monotonic() + paced(timeout_s)
    while left:
        for run_id in list(left):
            run = await store.get(run_id, TENANT)
            if run is None or run["status"] not in TERMINAL_STATUSES:
                break
            left.discard(run_id)
        assert time.monotonic() < deadline, await _unfinished(store, sorted(left))
        await asyncio.sleep(0.05)


async def _unfinished(store: Store, run_ids: Sequence[str]) -> str:
    facts = []
    for run_id in run_ids:
        run = await store.get(run_id, TENANT)
        if run is None:
            facts.append(f"{run_id} is lost")
        elif run["status"] not in TERMINAL_STATUSES:
            last = (await store.events(run_id, TENANT))[-1]
            where = f"{run['status']} of {run['owner']}, attempt {run['attempts']}"
            facts.append(f"{run_id} {where}, last {last.type} {last.node}")
    return "not ended: " + "; ".join(facts[:20])
