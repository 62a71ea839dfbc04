"""One suite for every backend of the runs' store: promises, not implementations."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from actors.stores.open_store import OPENERS, open_store, store_url
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, StoreError, ValidationError
from registries.contracts.runs import RunEvent, RunOrder, RunRequest, RunResult

URLS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite://{folder / 'a folder' / 'runs.db'}"
}


def order(run_id: str, tenant: str = "default") -> RunOrder:
    request = RunRequest(prompt="What is 48 + 37? – “quoted”", flow_type="challenge", metadata={"k": "ä"})
    return RunOrder(
        run_id=run_id, request_id=f"req-{run_id}", request=request, deadline_s=30, tenant=tenant, user="u"
    )


def event(run_id: str, seq: int, type: str = "node.completed") -> RunEvent:
    return RunEvent(
        run_id=run_id, seq=seq, time=1.5, type=type, node="creator", data={"text": "85", "n": [1, None]}
    )


def result(run_id: str, status: str = "completed") -> RunResult:
    return RunResult(run_id=run_id, flow="challenge", flow_version="v1", status=status, answer="85")


@pytest.fixture(params=sorted(OPENERS))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RuntimeConfig:
    return RuntimeConfig(home=str(tmp_path), store_url=URLS[request.param](tmp_path))


@pytest.fixture
async def store(config: RuntimeConfig) -> AsyncIterator[Store]:
    opened = await open_store(config)
    yield opened
    await opened.close()


async def test_an_accepted_run_is_there_for_another_process(store: Store, config: RuntimeConfig) -> None:
    await store.accept(order("r1"), "v1")
    other = await open_store(config)
    run = await other.get("r1", "default")
    await other.close()
    assert run is not None
    assert run["status"] == "queued" and run["flow_version"] == "v1" and run["user"] == "u"
    assert run["request"]["prompt"] == order("r1").request.prompt
    assert run["result"] is None and run["created_at"] <= time.time()


async def test_the_same_run_id_twice_is_a_conflict(store: Store) -> None:
    await store.accept(order("r1"), "v1")
    with pytest.raises(Conflict):
        await store.accept(order("r1"), "v1")


async def test_a_tenant_sees_its_own_runs_only(store: Store) -> None:
    await store.accept(order("r1", tenant="a"), "v1")
    await store.append_events([event("r1", 1)])
    assert await store.get("r1", "b") is None
    assert await store.events("r1", "b") == []
    assert await store.get("nothing", "a") is None


async def test_life_of_a_run(store: Store) -> None:
    await store.accept(order("r1"), "v1")
    assert await store.claim(order("r1"), "v1") == 0
    assert await store.claim(order("r1"), "v1") is None
    await store.append_events([event("r1", 1, "run.started"), event("r1", 2)])
    assert await store.finish("r1", result("r1"), [event("r1", 3, "run.completed")])
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "completed"
    assert run["result"]["answer"] == "85"
    assert run["started_at"] <= run["finished_at"]
    events = await store.events("r1", "default")
    assert [e.seq for e in events] == [1, 2, 3]
    assert events[1] == event("r1", 2)
    assert [e.seq for e in await store.events("r1", "default", after=2)] == [3]


async def test_a_claim_accepts_a_run_that_nobody_has(store: Store) -> None:
    claims = await asyncio.gather(*(store.claim(order("r1"), "v1") for _ in range(5)))
    assert claims.count(None) == 4 and claims.count(0) == 1
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "running"


async def test_a_later_attempt_takes_a_run_over_and_goes_on_counting(store: Store) -> None:
    assert await store.claim(order("r1"), "v1") == 0
    await store.append_events([event("r1", 1, "run.started"), event("r1", 2)])
    second = order("r1").model_copy(update={"attempt": 2})
    assert await store.claim(second, "v1") == 2
    assert await store.claim(second, "v1") is None
    await store.finish("r1", result("r1"))
    assert await store.claim(order("r1").model_copy(update={"attempt": 3}), "v1") is None


async def test_history_is_the_conversation_of_this_tenant(store: Store) -> None:
    for number, tenant, conversation in (
        (1, "a", "c"),
        (2, "a", "c"),
        (3, "b", "c"),
        (4, "a", "other"),
        (5, "a", "c"),
    ):
        asked = order(f"r{number}", tenant)
        request = asked.request.model_copy(update={"prompt": f"q{number}", "conversation_id": conversation})
        await store.accept(asked.model_copy(update={"request": request}), "v1")
        if number != 5:
            await store.finish(f"r{number}", result(f"r{number}").model_copy(update={"answer": f"a{number}"}))
    turns = await store.history("c", "a", 20)
    assert [(t.role, t.content) for t in turns] == [
        ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2"),
    ]  # fmt: skip
    assert [t.content for t in await store.history("c", "a", 1)] == ["a2"]
    assert await store.history("c", "a", 0) == []
    assert await store.history("nothing", "a", 5) == []


async def test_the_first_terminal_state_stays(store: Store) -> None:
    await store.accept(order("r1"), "v1")
    assert await store.finish("r1", result("r1", "cancelled"), [event("r1", 1, "run.cancelled")])
    assert not await store.finish("r1", result("r1"), [event("r1", 2, "run.completed")])
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "cancelled"
    assert [e.seq for e in await store.events("r1", "default")] == [1]
    assert await store.claim(order("r1"), "v1") is None


async def test_a_commit_with_a_bad_row_writes_nothing(store: Store) -> None:
    await store.accept(order("r1"), "v1")
    await store.append_events([event("r1", 1)])
    with pytest.raises(Conflict):
        await store.append_events([event("r1", 2), event("r1", 1)])
    with pytest.raises(Conflict):
        await store.finish("r1", result("r1"), [event("r1", 1, "run.completed")])
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "queued"
    assert [e.seq for e in await store.events("r1", "default")] == [1]
    with pytest.raises(Conflict):
        await store.append_events([event("unknown-run", 1)])


async def test_interrupted_runs_fail_with_the_cause(store: Store) -> None:
    for run_id in ("queued", "running", "done"):
        await store.accept(order(run_id), "v1")
    await store.claim(order("running"), "v1")
    await store.append_events([event("running", 1, "run.started")])
    await store.finish("done", result("done"), [event("done", 1, "run.completed")])
    assert await store.mark_interrupted("the runtime ended while the run was under way") == 2
    assert await store.mark_interrupted("again") == 0
    for run_id, seqs in (("queued", [1]), ("running", [1, 2]), ("done", [1])):
        run = await store.get(run_id, "default")
        events = await store.events(run_id, "default")
        assert run is not None and [e.seq for e in events] == seqs
        if run_id != "done":
            assert run["status"] == "failed"
            assert run["result"]["error"]["code"] == "interrupted"
            assert "runtime ended" in run["result"]["error"]["message"]
            assert events[-1].type == "run.failed"


async def test_many_at_once_lose_nothing(store: Store) -> None:
    async def live(number: int) -> None:
        run_id = f"r{number}"
        await store.accept(order(run_id), "v1")
        await store.append_events([event(run_id, 1, "run.started")])
        await store.finish(run_id, result(run_id), [event(run_id, 2, "run.completed")])

    await asyncio.gather(*(live(n) for n in range(50)))
    for number in range(50):
        run = await store.get(f"r{number}", "default")
        assert run is not None and run["status"] == "completed"


async def test_a_closed_store_says_so(config: RuntimeConfig) -> None:
    store = await open_store(config)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.accept(order("r1"), "v1")


def _write_runs(config_json: str, name: str, count: int) -> None:
    async def main() -> None:
        store = await open_store(RuntimeConfig.model_validate_json(config_json))
        for number in range(count):
            run_id = f"{name}-{number}"
            await store.accept(order(run_id), "v1")
            await store.append_events([event(run_id, 1, "run.started"), event(run_id, 2)])
            await store.finish(run_id, result(run_id), [event(run_id, 3, "run.completed")])
        await store.close()

    asyncio.run(main())


def _write_until_killed(config_json: str, acknowledged: str) -> None:
    async def main() -> None:
        store = await open_store(RuntimeConfig.model_validate_json(config_json))
        with open(acknowledged, "a", buffering=1) as file:
            for number in range(100_000):
                await store.accept(order(f"k-{number}"), "v1")
                file.write(f"k-{number}\n")

    asyncio.run(main())


async def test_several_processes_write_at_once(config: RuntimeConfig) -> None:
    spawn = multiprocessing.get_context("spawn")
    names = ("a", "b", "c")
    writers = [spawn.Process(target=_write_runs, args=(config.model_dump_json(), name, 25)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        await asyncio.to_thread(writer.join, 60)
        assert writer.exitcode == 0
    store = await open_store(config)
    for name in names:
        for number in range(25):
            run_id = f"{name}-{number}"
            run = await store.get(run_id, "default")
            assert run is not None and run["status"] == "completed"
            assert [e.seq for e in await store.events(run_id, "default")] == [1, 2, 3]
    await store.close()


async def test_a_killed_writer_loses_no_acknowledged_run(config: RuntimeConfig, tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=_write_until_killed, args=(config.model_dump_json(), str(acknowledged)))
    writer.start()
    deadline = time.monotonic() + 60
    while not (acknowledged.exists() and acknowledged.read_text().count("\n") >= 20):
        assert time.monotonic() < deadline and writer.is_alive()
        await asyncio.sleep(0.01)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    await asyncio.to_thread(writer.join, 10)
    lines = acknowledged.read_text()
    known = lines[: lines.rfind("\n")].split("\n")
    store = await open_store(config)
    for run_id in known:
        assert await store.get(run_id, "default") is not None
    assert await store.mark_interrupted("killed") >= len(known)
    await store.close()


async def test_an_unknown_scheme_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="sqlite") as caught:
        await open_store(RuntimeConfig(home=str(tmp_path), store_url="oracle://x"))
    assert caught.value.param == "store_url"


class TestSQLite:
    """What only the embedded backend promises."""

    async def test_default_is_a_file_in_the_home(self, tmp_path: Path) -> None:
        config = RuntimeConfig(home=str(tmp_path))
        store = await open_store(config)
        await store.close()
        assert store_url(config).startswith("sqlite:///")
        assert (tmp_path / "parley.db").is_file()

    async def test_a_path_that_cannot_be_is_named(self, tmp_path: Path) -> None:
        blocker = tmp_path / "file"
        blocker.write_text("")
        with pytest.raises(StoreError, match="file"):
            await open_store(RuntimeConfig(home=str(tmp_path), store_url=f"sqlite://{blocker}/runs.db"))

    async def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "parley.db").write_text(
            "this is not a database, by any means, and long enough to be read" * 50
        )
        with pytest.raises(StoreError, match="not a database"):
            await open_store(RuntimeConfig(home=str(tmp_path)))

    async def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        config = RuntimeConfig(home=str(tmp_path))
        await (await open_store(config)).close()
        with sqlite3.connect(tmp_path / "parley.db") as connection:
            connection.execute("INSERT INTO migrations VALUES (99, 0)")
        connection.close()
        with pytest.raises(StoreError, match="99"):
            await open_store(config)

    async def test_a_full_disk_refuses_and_recovers(self, tmp_path: Path) -> None:
        store = await open_store(RuntimeConfig(home=str(tmp_path)))
        await store.accept(order("before"), "v1")
        connection = store._connection  # type: ignore[attr-defined]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        big = order("big").model_copy(
            update={"request": RunRequest(prompt="x" * 100_000, flow_type="linear")}
        )
        with pytest.raises(StoreError, match="full"):
            await store.accept(big, "v1")
        assert await store.get("big", "default") is None
        connection.execute("PRAGMA max_page_count = 1000000")
        await store.accept(big, "v1")
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        await store.close()
