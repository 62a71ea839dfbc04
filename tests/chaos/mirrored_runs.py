"""Runs that are written by one store and followed by another, over one database and one Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from actors.stores.live_events import live_events
from actors.stores.mirrored_store import MirroredStore
from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, RunWrite
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunEvent
from tests.conformance.stores.sample_runs import new_run, result

TOKEN = "node.token"


@asynccontextmanager
async def mirrored(folder: Path, redis_url: str, instance: str) -> AsyncIterator[MirroredStore]:
    """A store of its own, as another process has it."""
    store = MirroredStore(await open_store(RuntimeConfig(home=str(folder))), redis_url, instance)
    try:
        yield store
    finally:
        await store.close()


def event(run_id: str, seq: int, type: str, **data: object) -> RunEvent:
    return RunEvent(run_id=run_id, seq=seq, time=time.time(), type=type, node="n", data=data)


class Writer:
    """One held run: commits events, and publishes them with tokens. ``commits_s``: how long each took."""

    def __init__(self, store: Store, claimed: ClaimedRun) -> None:
        self.lease = claimed.lease
        self.seq = claimed.last_seq
        self.commits_s: list[float] = []
        self._store = store

    async def step(self) -> None:
        """One durable event between two tokens."""
        run_id, before = self.lease.run_id, self.seq
        self.seq += 1
        durable = event(run_id, self.seq, "node.completed", text="– 85")
        begun = time.monotonic()
        await self._store.commit(self.lease, RunWrite((durable,)))
        self.commits_s.append(time.monotonic() - begun)
        live_events(self._store).publish(
            run_id,
            [event(run_id, before, TOKEN, text="a"), durable, event(run_id, self.seq, TOKEN, text="b")],
        )

    async def end(self) -> None:
        self.seq += 1
        run_id = self.lease.run_id
        done = result(run_id)
        ended = event(run_id, self.seq, "run.completed", result=done.model_dump(mode="json"))
        await self._store.finish(self.lease, done, RunWrite((ended,)))


class Follower:
    """Reads one run to its end as a server does: live events, and the store for gaps and in between."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.events: list[RunEvent] = []
        self.tokens = 0
        self.live = 0
        self._store = store
        self._run_id = run_id
        self._news = asyncio.Event()

    @property
    def seq(self) -> int:
        return self.events[-1].seq if self.events else 0

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].type == "run.completed"

    async def read(self, every_s: float = 0.1) -> None:
        """Until the run's end."""
        listening = asyncio.create_task(self._listen())
        try:
            while not self.ended:
                # The same task takes both, so that no event is taken between a question and its answer.
                self._news.clear()
                self._take(await self._store.tail({self._run_id: self.seq}))
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await self._news.wait()
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self) -> None:
        async for batch in live_events(self._store).subscribe(self._run_id, self.seq):
            before = self.seq
            self._take(batch)
            self.live += self.seq - before
            self.tokens += sum(e.type == TOKEN for e in batch)
            self._news.set()

    def _take(self, events: Sequence[RunEvent]) -> None:
        for item in events:
            # What leaves a gap is read from the database, by the next tail.
            if item.type != TOKEN and item.seq == self.seq + 1:
                self.events.append(item)


async def start_runs(store: Store, count: int) -> list[Writer]:
    writers = []
    for number in range(count):
        claimed = await store.claim(new_run(f"r{number}"), "runner", 600.0, 3)
        assert claimed is not None
        writers.append(Writer(store, claimed))
    return writers
