from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.running import run_log
from actors.running.run_log import RunLog
from actors.stores.records import CheckpointRow, Lease, WriteRow
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from registries.contracts.errors import Conflict, LeaseLost, StoreFull
from registries.contracts.runs import RunEvent, RunResult, Waiting
from tests.polling import until
from tests.unit.actors.running.fakes import MemoryStore


def result(status: str = "completed") -> RunResult:
    return RunResult(run_id="r", flow="f", flow_version="v", status=status, answer="85")


def checkpoint(name: str) -> CheckpointRow:
    return CheckpointRow("r", "", name, None, "msgpack", b"state", b"{}")


def task_write(node: str, task: str = "t1") -> WriteRow:
    return WriteRow("r", "", "c0", task, 0, "outputs", "msgpack", b"text", f"~__pregel_pull, {node}")


def log_over(
    store: MemoryStore,
    last_seq: int = 0,
    patience_s: float = 5.0,
    held: bool = True,
    begin_patience_s: float = 0.01,
) -> RunLog:
    metrics = Metrics(NullSink(), "test")
    return RunLog(
        Lease("r", 1),
        last_seq,
        store,  # type: ignore[arg-type]
        metrics,
        is_held=lambda: held,
        now=lambda: 1.0,
        linger_s=lambda: 0.001,
        begin_patience_s=lambda: begin_patience_s,
        patience_s=patience_s,
    )


@asynccontextmanager
async def pumping(log: RunLog) -> AsyncIterator[asyncio.Task[None]]:
    pump = asyncio.create_task(log.pump())
    try:
        yield pump
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def everything(log: RunLog) -> list[RunEvent]:
    return [event async for batch in log.reader().batches() for event in batch]


async def test_durable_events_are_gapless_and_tokens_carry_the_last_seq() -> None:
    store = MemoryStore()
    log = log_over(store, last_seq=4)
    reading = asyncio.create_task(everything(log))
    async with pumping(log) as pump:
        await log.emit("run.started", None, {})
        await log.emit("node.started", "a", {})
        await log.emit("node.token", "a", {"text": "x"})
        await log.emit("node.token", "a", {"text": "y"})
        await log.emit("node.completed", "a", {"text": "xy"})
        await log.finish(pump, result())
        log.end()
    events = await reading
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

    reading = asyncio.create_task(read())
    async with pumping(log) as pump:
        await log.emit("node.started", "a", {})
        kept = asyncio.create_task(log.keep([checkpoint("c1")], []))
        await until(lambda: not log._pending, 2)
        assert seen == [] and not kept.done()
        await log.emit("node.started", "b", {})
        store.gate.set()
        await until(lambda: len(seen) == 2, 2)
        await log.finish(pump, result())
        log.end()
    await reading


@pytest.mark.parametrize(("patience_s", "commits"), [(0.0, 2), (60.0, 1)])
async def test_a_beginning_waits_for_its_end_as_long_as_it_is_told(patience_s: float, commits: int) -> None:
    store = MemoryStore()
    log = log_over(store, begin_patience_s=patience_s)
    async with pumping(log) as pump:
        await log.emit("node.started", "a", {})
        if commits == 2:
            await until(lambda: len(store.commits) == 1, 2)
        await log.emit("node.completed", "a", {})
        await asyncio.wait_for(log.keep([checkpoint("c1")], [task_write("a")]), 2)
        assert [[e.type for e in commit] for commit in store.commits] == (
            [["node.started"], ["node.completed"]] if commits == 2 else [["node.started", "node.completed"]]
        )
        await log.finish(pump, result())
        log.end()


async def test_a_node_s_end_and_the_checkpoint_after_it_are_one_commit() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        log.defer([checkpoint("input")])
        await log.emit("run.started", None, {})
        await log.emit("node.started", "a", {})
        await log.emit("node.completed", "a", {})
        saved = asyncio.create_task(log.keep([], [task_write("a")]))
        await asyncio.sleep(0)
        await log.keep([checkpoint("c1")], [])
        await saved
        assert len(store.writes) == 1
        only = store.writes[0]
        assert [c.checkpoint_id for c in only.checkpoints] == ["input", "c1"]
        assert [w.task_id for w in only.writes] == ["t1"]
        assert [e.type for e in only.events] == ["run.started", "node.started", "node.completed"]
        await log.finish(pump, result())


async def test_the_last_node_s_end_and_the_run_s_are_one_commit() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        await log.hold([], [task_write("a")])
        await log.hold([checkpoint("c1")], [])
        await log.finish(pump, result())
    assert [[e.type for e in commit] for commit in store.commits] == [["node.completed", "run.completed"]]
    assert [c.checkpoint_id for c in store.writes[0].checkpoints] == ["c1"]


async def test_the_last_node_s_end_waits_for_the_run_s_only_so_long() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        await log.hold([], [task_write("a")])
        await until(lambda: bool(store.commits), 2)
        assert [w.task_id for w in store.writes[0].writes] == ["t1"]
        assert [e.type for e in store.commits[0]] == ["node.completed"]
        await log.hold([checkpoint("c1")], [])
        await log.flush()
        assert [c.checkpoint_id for c in store.writes[1].checkpoints] == ["c1"]
        await log.finish(pump, result())


async def test_a_run_handed_over_before_its_end_keeps_its_last_node() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        await log.hold([checkpoint("c1")], [task_write("a")])
        await log.release(pump)
    assert [e.type for commit in store.commits for e in commit] == ["node.completed", "run.released"]
    assert [c.checkpoint_id for c in store.writes[0].checkpoints] == ["c1"]


async def test_an_expert_s_end_is_committed_without_waiting_for_its_siblings() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        await asyncio.wait_for(log.keep([], [task_write("a")]), 2)
        assert [w.task_id for w in store.writes[0].writes] == ["t1"]
        await log.finish(pump, result())


async def test_a_node_s_end_is_not_committed_without_its_writes() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        await log.emit("node.completed", "b", {})
        kept_b = asyncio.create_task(log.keep([], [task_write("b", "t2")]))
        await until(lambda: len(store.writes) == 1, 2)
        assert store.commits == [[]], "the end of a holds back that of b"
        await kept_b
        await log.keep([], [task_write("a", "t1")])
        await log.flush()
        assert [e.node for commit in store.commits for e in commit] == ["a", "b"]
        await log.finish(pump, result())


async def test_a_run_that_is_handed_over_takes_back_the_ends_without_writes() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.started", "a", {})
        await log.emit("node.completed", "a", {})
        await log.emit("node.started", "b", {})
        await log.release(pump)
    events = [e for commit in store.commits for e in commit]
    assert [(e.type, e.seq) for e in events] == [("node.started", 1), ("run.released", 2)]


async def test_tokens_alone_cost_no_commit_and_leave_the_deferred_state() -> None:
    store = MemoryStore()
    log = log_over(store)
    reader = log.reader()
    async with pumping(log) as pump:
        log.defer([checkpoint("input")])
        await log.emit("node.token", "a", {"text": "x"})
        batches = reader.batches()
        assert [e.type for e in await anext(batches)] == ["node.token"]
        assert store.writes == []
        await log.finish(pump, result())
    assert [c.checkpoint_id for c in store.writes[0].checkpoints] == ["input"]


async def test_a_store_that_is_away_for_a_moment_loses_nothing() -> None:
    store = MemoryStore()
    store.refusals = 2
    log = log_over(store)
    reading = asyncio.create_task(everything(log))
    async with pumping(log) as pump:
        await log.emit("run.started", None, {})
        await until(lambda: bool(store.commits), 5)
        await log.emit("node.started", "a", {})
        store.refusals = 1
        await log.finish(pump, result())
        log.end()
    assert [e.seq for e in await reading] == [1, 2, 3]
    assert [e.seq for commit in store.commits for e in commit] == [1, 2, 3]


@pytest.mark.parametrize(("patience_s", "held"), [(0.0, True), (60.0, False)])
async def test_a_store_that_stays_away_ends_the_run_here(patience_s: float, held: bool) -> None:
    store = MemoryStore()
    store.refusals = 1_000
    log = log_over(store, patience_s=patience_s, held=held)
    async with pumping(log) as pump:
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(log.keep([checkpoint("c1")], []), 5)
        with pytest.raises(LeaseLost):
            await pump
    assert store.writes == []


async def test_a_full_store_is_waited_for_as_long_as_the_lease_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_log, "STORE_PAUSE_S", 0.001)
    store = MemoryStore()
    store.refusals, store.refusal = 20, StoreFull("the disk is full")
    log = log_over(store, patience_s=0.0)
    async with pumping(log):
        await asyncio.wait_for(log.keep([checkpoint("c1")], []), 10)
    assert len(store.writes) == 1
    store.refusals = 1
    lost = log_over(store, patience_s=60.0, held=False)
    async with pumping(lost):
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(lost.keep([checkpoint("c2")], []), 10)


async def test_a_run_that_was_taken_over_writes_nothing_more() -> None:
    store = MemoryStore()
    store.lost = True
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("node.completed", "a", {})
        with pytest.raises(LeaseLost):
            await log.keep([checkpoint("c1")], [])
        with pytest.raises(LeaseLost):
            await log.finish(pump, result())
    assert store.writes == [] and store.results == []


async def test_what_is_handed_in_after_the_writing_has_ended_is_refused_and_not_waited_for() -> None:
    store = MemoryStore()
    store.gate.clear()
    log = log_over(store)
    async with pumping(log) as pump:
        first = asyncio.create_task(log.keep((checkpoint("c1"),), ()))
        await until(lambda: store.asked == 1, 5)
        # Joins the next commit, which never comes.
        second = asyncio.create_task(log.keep((), (task_write("a"),)))
        await asyncio.sleep(0)
        store.lost = True
        store.gate.set()
        late = (log.keep((), (task_write("b"),)), log.hold((), (task_write("b"),)), log.flush())
        for asked in (first, second, *late):
            with pytest.raises(LeaseLost):
                await asyncio.wait_for(asked, 5)
        with pytest.raises(LeaseLost):
            await pump


async def test_no_node_begins_once_the_lease_is_not_sure() -> None:
    log = log_over(MemoryStore(), held=False)
    await log.emit("node.token", "a", {"text": "x"})
    with pytest.raises(LeaseLost):
        await log.emit("node.started", "a", {})
    assert log.seq == 0


@pytest.mark.parametrize("ending", ["wait", "release"])
async def test_the_other_endings_are_committed_with_what_is_pending(ending: str) -> None:
    store = MemoryStore()
    log = log_over(store)
    waiting = Waiting(node="approve", interrupt_id="i1", text="85?")
    async with pumping(log) as pump:
        await log.emit("node.started", "approve", {})
        if ending == "wait":
            await log.wait(pump, result("waiting"), waiting)
        else:
            await log.release(pump)
    assert store.endings == [ending]
    last = store.writes[-1].events[-1]
    assert last.type == ("run.waiting" if ending == "wait" else "run.released") and last.seq == 2
    assert (last.data.get("waiting") == waiting.model_dump(mode="json")) == (ending == "wait")


async def test_a_run_that_was_cut_off_before_tells_which_node_begins_before_it_does() -> None:
    store = MemoryStore()
    log = RunLog(
        Lease("r", 2),
        0,
        store,  # type: ignore[arg-type]
        Metrics(NullSink(), "test"),
        is_careful=True,
    )
    async with pumping(log) as pump:
        await log.emit("node.started", "a", {})
        assert [e.type for commit in store.commits for e in commit] == ["node.started"]
        await log.finish(pump, result())


async def test_a_late_reader_gets_what_was_shown_since_the_claim() -> None:
    store = MemoryStore()
    log = log_over(store)
    async with pumping(log) as pump:
        await log.emit("run.started", None, {})
        await log.emit("node.token", "a", {"text": "x"})
        await log.flush()
        await until(lambda: bool(store.commits), 2)
        late = asyncio.create_task(everything(log))
        await asyncio.sleep(0)
        await log.finish(pump, result())
        log.end()
    assert [e.type for e in await late] == ["run.started", "run.completed"]


async def test_readers_get_the_error_of_a_run_that_left() -> None:
    log = log_over(MemoryStore())
    reading = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    log.end(Conflict("taken over"))
    with pytest.raises(Conflict):
        await reading


async def test_a_reader_that_leaves_is_forgotten_and_a_slow_one_merges_tokens() -> None:
    store = MemoryStore()
    log = log_over(store)
    leaving, slow = log.reader(), log.reader()
    async with pumping(log) as pump:
        await log.emit("run.started", None, {})
        stream = leaving.batches()
        assert [e.type for e in await anext(stream)] == ["run.started"]
        await stream.aclose()  # type: ignore[attr-defined]
        assert leaving not in log._readers
        for _ in range(5):
            await log.emit("node.token", "a", {"text": "x"})
            await until(lambda: not log._pending, 2)
        await log.finish(pump, result())
        log.end()
    batches = [batch async for batch in slow.batches()]
    assert [e.data.get("text") for batch in batches for e in batch if e.type == "node.token"] == ["xxxxx"]
