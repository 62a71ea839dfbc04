from __future__ import annotations

import asyncio

import pytest

from actors.running.run_log import RunLog
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from registries.contracts.errors import Conflict, StoreError
from registries.contracts.runs import RunEvent, RunResult
from tests.polling import until
from tests.unit.actors.running.fakes import MemoryStore


def result(status: str = "completed") -> RunResult:
    return RunResult(run_id="r", flow="f", flow_version="v", status=status, answer="85")


def log_over(store: MemoryStore, last_seq: int = 0, patience_s: float = 5.0) -> RunLog:
    metrics = Metrics(NullSink(), "test")
    return RunLog("r", store, metrics, last_seq, lambda: 1.0, linger_s=lambda: 0.001, patience_s=patience_s)


async def everything(log: RunLog) -> list[RunEvent]:
    return [event async for batch in log.reader().batches() for event in batch]


async def test_durable_events_are_gapless_and_tokens_carry_the_last_seq() -> None:
    store = MemoryStore()
    log = log_over(store, last_seq=4)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(everything(log))
        pump = group.create_task(log.pump())
        await asyncio.sleep(0)
        await log.emit("run.started", None, {})
        await log.emit("node.started", "a", {})
        await log.emit("node.token", "a", {"text": "x"})
        await log.emit("node.token", "a", {"text": "y"})
        await log.emit("node.completed", "a", {"text": "xy"})
        assert await log.finish(pump, result())
        log.end()
    events = reading.result()
    assert [(e.type, e.seq) for e in events] == [
        ("run.started", 5),
        ("node.started", 6),
        ("node.token", 6),
        ("node.completed", 7),
        ("run.completed", 8),
    ]
    assert events[2].data == {"text": "xy"}
    assert events[-1].data["result"] == result().model_dump(mode="json")
    assert [e.seq for commit in store.commits for e in commit] == [5, 6, 7, 8]


async def test_nothing_durable_is_shown_before_its_commit_and_emit_does_not_wait() -> None:
    store = MemoryStore()
    store.gate.clear()
    log = log_over(store)
    seen: list[RunEvent] = []

    async def read() -> None:
        async for batch in log.reader().batches():
            seen.extend(batch)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        pump = group.create_task(log.pump())
        await log.emit("run.started", None, {})
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen == []
        await log.emit("node.started", "a", {})
        store.gate.set()
        await until(lambda: len(seen) == 2, 2)
        await log.finish(pump, result())
        log.end()


async def test_a_store_that_is_away_for_a_moment_loses_nothing() -> None:
    store = MemoryStore()
    store.refusals = 2
    log = log_over(store)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(everything(log))
        pump = group.create_task(log.pump())
        await asyncio.sleep(0)
        await log.emit("run.started", None, {})
        await until(lambda: bool(store.commits), 5)
        await log.emit("node.started", "a", {})
        await log.finish(pump, result())
        log.end()
    assert [e.seq for e in reading.result()] == [1, 2, 3]


async def test_an_end_that_cannot_be_written_is_an_error() -> None:
    store = MemoryStore()
    store.refusals = 10
    log = log_over(store, patience_s=0.0)
    pump = asyncio.create_task(log.pump())
    with pytest.raises(StoreError):
        await log.finish(pump, result())
    log.end(StoreError("the disk is away"))
    assert store.results == {}


async def test_a_run_that_somebody_ended_shows_no_second_end() -> None:
    store = MemoryStore()
    store.results["r"] = result("cancelled")
    log = log_over(store)
    reading = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    pump = asyncio.create_task(log.pump())
    assert not await log.finish(pump, result())
    log.end(Conflict("ended by somebody else"))
    with pytest.raises(Conflict):
        await reading


async def test_a_reader_that_leaves_is_forgotten_and_a_slow_one_merges_tokens() -> None:
    store = MemoryStore()
    log = log_over(store)
    leaving, slow = log.reader(), log.reader()
    pump = asyncio.create_task(log.pump())
    await log.emit("run.started", None, {})
    stream = leaving.batches()
    assert [e.type for e in await anext(stream)] == ["run.started"]
    await stream.aclose()  # type: ignore[attr-defined]
    for _ in range(5):
        await log.emit("node.token", "a", {"text": "x"})
        await until(lambda: not log._pending, 2)
    await log.finish(pump, result())
    log.end()
    batches = [batch async for batch in slow.batches()]
    assert [e.data.get("text") for batch in batches for e in batch if e.type == "node.token"] == ["xxxxx"]
