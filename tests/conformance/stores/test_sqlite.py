"""What only the embedded backend promises: its file, its clock, its limits, its older versions."""

from __future__ import annotations

import asyncio
import fcntl
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.stores.damaged_file import set_aside_damaged
from actors.stores.machine_clock import MachineClock
from actors.stores.open_store import open_store, store_url
from actors.stores.records import CallClaim, CallState, RunWrite
from actors.stores.schema import SQLITE_FIRST
from actors.stores.sql_store import SqlStore
from actors.stores.sqlite_connection import SqliteFile
from actors.stores.sqlite_database import SqliteDatabase
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import StoreError, StoreFull, ValidationError
from registries.contracts.generation import MAX_PROMPT_CHARS
from tests.conformance.stores.sample_runs import (
    LONG_S,
    checkpoint,
    end,
    event,
    key,
    new_run,
    status_of,
    take,
    types_of,
    write,
)
from tests.machine_pace import paced

HOUR_S = 3600.0


@dataclass
class Clocks:
    """Clocks that a test turns."""

    wall_s: float = 1.7e9
    lease_s: float = 5000.0
    boot: str = "first boot"

    def machine(self) -> MachineClock:
        return MachineClock(lambda: self.wall_s, lambda: self.lease_s, lambda: self.boot)


@asynccontextmanager
async def opened(path: Path, clocks: Clocks) -> AsyncIterator[SqlStore]:
    store = SqlStore(await SqliteDatabase.open(SqliteFile(path, clock=clocks.machine())))
    try:
        yield store
    finally:
        await store.close()


class TestLeaseClock:
    """Leases run by a clock that nobody sets."""

    @pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
    async def test_a_jump_of_the_wall_clock_moves_no_lease(self, tmp_path: Path, jump_s: float) -> None:
        clocks = Clocks()
        async with opened(tmp_path / "runs.db", clocks) as store:
            await take(store, "r1", ttl_s=10.0, deadline_s=80_000)
            clocks.wall_s += jump_s
            clocks.lease_s += 9.9
            assert await store.claim_next("two", 10.0, 3, 5) == []
            clocks.lease_s += 0.2
            (claimed,) = await store.claim_next("two", 10.0, 3, 5)
            assert claimed.queued_s == max(0.0, jump_s)

    async def test_after_a_reboot_old_leases_have_run_out(self, tmp_path: Path) -> None:
        clocks = Clocks()
        async with opened(tmp_path / "runs.db", clocks) as store:
            await take(store, "r1", ttl_s=LONG_S)
            await store.claim_call(key(), CallClaim("default", "k", "one", "token", LONG_S))
        clocks.boot, clocks.lease_s = "second boot", 3.0
        async with opened(tmp_path / "runs.db", clocks) as store:
            (claimed,) = await store.claim_next("two", LONG_S, 3, 5)
            assert claimed.lease.token == 2
            assert await store.look_at_call("default", key()) == CallState("free")

    async def test_a_clock_that_began_again_is_a_reboot_where_boots_have_no_id(self, tmp_path: Path) -> None:
        clocks = Clocks(boot="")
        async with opened(tmp_path / "runs.db", clocks) as store:
            await take(store, "r1", ttl_s=LONG_S)
        clocks.lease_s = 3.0
        async with opened(tmp_path / "runs.db", clocks) as store:
            assert len(await store.claim_next("two", LONG_S, 3, 5)) == 1

    async def test_opening_again_on_the_same_boot_changes_nothing(self, tmp_path: Path) -> None:
        clocks = Clocks()
        async with opened(tmp_path / "runs.db", clocks) as store:
            await take(store, "r1", ttl_s=LONG_S)
            clocks.lease_s += 1
            async with opened(tmp_path / "runs.db", clocks) as other:
                assert await other.claim_next("two", LONG_S, 3, 5) == []


class TestFullDisk:
    """A file that may not grow refuses, keeps what it has, and goes on when there is room."""

    async def test_refused_as_full_and_recovers_without_a_restart(self, tmp_path: Path) -> None:
        url = f"sqlite://{tmp_path / 'runs.db'}?max_page_count=150"
        store = await open_store(RuntimeConfig(home=str(tmp_path), store_url=url))
        claimed = await take(store, "before")
        big = b"x" * 50_000
        kept = 0
        with pytest.raises(StoreFull) as caught:
            for kept in range(100):
                await store.keep([checkpoint(f"t{kept}", data=big)], [])
        assert caught.value.retry_after_s and kept > 3
        full = RunWrite((event("before", 2, "run.started"),), (checkpoint("before", data=big),))
        with pytest.raises(StoreFull):
            await store.commit(claimed.lease, full)
        with pytest.raises(StoreFull):
            await store.accept(new_run("big", prompt="x" * min(MAX_PROMPT_CHARS, 60_000)))
        assert await types_of(store, "before") == ["run.queued"]
        assert await store.get("big", "default") is None
        await store.drop_threads([f"t{number}" for number in range(kept)])
        await store.commit(claimed.lease, full)
        await end(store, claimed, seq=3)
        assert await types_of(store, "before") == ["run.queued", "run.started", "run.completed"]
        await store.close()

    async def test_a_small_write_fits_beside_a_big_one(self, tmp_path: Path) -> None:
        url = f"sqlite://{tmp_path / 'runs.db'}?max_page_count=150"
        store = await open_store(RuntimeConfig(home=str(tmp_path), store_url=url))
        outcomes = await asyncio.gather(
            store.accept(new_run("small-1")),
            store.keep([checkpoint("t", data=b"x" * 2_000_000)], []),
            store.accept(new_run("small-2")),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], StoreFull)
        assert await status_of(store, "small-1") == await status_of(store, "small-2") == "queued"
        await store.close()


class TestFile:
    """Where it is, who else holds it, what it must be."""

    async def test_default_is_a_file_in_the_home(self, tmp_path: Path) -> None:
        home = tmp_path / "a home? 100%"
        config = RuntimeConfig(home=str(home))
        store = await open_store(config)
        await store.close()
        assert store_url(config).startswith("sqlite:///") and (home / "parley.db").is_file()

    @pytest.mark.parametrize(
        "query", ["max_page_count=x", "max_page_count=", "max_page_count=0", "mode=ro", "max_page_count=-1"]
    )
    async def test_a_parameter_that_cannot_be_is_refused(self, tmp_path: Path, query: str) -> None:
        url = f"sqlite://{tmp_path / 'runs.db'}?{query}"
        with pytest.raises(ValidationError) as caught:
            await open_store(RuntimeConfig(home=str(tmp_path), store_url=url))
        assert caught.value.param == "store_url"

    async def test_a_path_that_cannot_be_is_named(self, tmp_path: Path) -> None:
        blocker = tmp_path / "file"
        blocker.write_text("")
        with pytest.raises(StoreError, match="file"):
            await open_store(RuntimeConfig(home=str(tmp_path), store_url=f"sqlite://{blocker}/runs.db"))

    async def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "parley.db").write_text("this is no database, and long enough to be read" * 50)
        with pytest.raises(StoreError, match="not a database"):
            await open_store(RuntimeConfig(home=str(tmp_path)))

    @pytest.mark.parametrize("damage", ["no database", "torn pages"])
    async def test_a_damaged_file_makes_room_and_is_kept(self, tmp_path: Path, damage: str) -> None:
        config, path = RuntimeConfig(home=str(tmp_path)), tmp_path / "parley.db"
        assert set_aside_damaged(path) is None, "there is none"
        store = await open_store(config)
        for number in range(50):
            await store.accept(new_run(f"r{number}"))
        await store.close()
        assert set_aside_damaged(path) is None, "it is sound"
        whole = path.read_bytes()
        torn = whole[:4096] + b"\xff" * (len(whole) - 4096)
        path.write_bytes(b"this is no database" * 500 if damage == "no database" else torn)
        bad = path.read_bytes()
        aside = set_aside_damaged(path)
        assert aside is not None and aside.parent == tmp_path and aside.read_bytes() == bad
        assert not path.exists() and not Path(f"{path}-wal").exists()
        store = await open_store(config)
        assert await store.get("r0", "default") is None
        await store.close()

    async def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        config = RuntimeConfig(home=str(tmp_path))
        await (await open_store(config)).close()
        with sqlite3.connect(tmp_path / "parley.db") as connection:
            connection.execute("INSERT INTO migrations VALUES (99, 0)")
        connection.close()
        with pytest.raises(StoreError, match="99"):
            await open_store(config)

    async def test_a_write_waits_for_another_process_and_goes_on_at_once(self, tmp_path: Path) -> None:
        store = await open_store(RuntimeConfig(home=str(tmp_path)))
        with open(tmp_path / "parley.db.lock", "r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            waiting = [asyncio.create_task(store.accept(new_run(f"r{number}"))) for number in range(5)]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            assert await store.get("r0", "default") is None  # reads do not wait
            fcntl.flock(other, fcntl.LOCK_UN)
            freed_at = time.monotonic()
            await asyncio.gather(*waiting)
        assert time.monotonic() - freed_at < paced(2)
        await store.close()

    async def test_a_lock_held_for_ever_is_told_and_nothing_happens_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await open_store(RuntimeConfig(home=str(tmp_path)))
        renewer = store.open_renewer()
        with open(tmp_path / "parley.db.lock", "r+") as other, monkeypatch.context() as impatient:
            impatient.setattr("actors.stores.sqlite_database.BUSY_TIMEOUT_S", 0.1)
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(StoreError, match="another process") as caught:
                await store.accept(new_run("given up"))
            assert caught.value.retry_after_s
            with pytest.raises(StoreError, match="another process"):
                await asyncio.to_thread(renewer.renew, [], 1.0)
        await store.accept(new_run("later"))
        assert await store.get("given up", "default") is None
        await asyncio.to_thread(renewer.close)
        await store.close()

    async def test_a_stranger_s_lock_is_waited_for(self, tmp_path: Path) -> None:
        store = await open_store(RuntimeConfig(home=str(tmp_path)))
        stranger = sqlite3.connect(tmp_path / "parley.db", isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.accept(new_run("r1")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        stranger.execute("ROLLBACK")
        stranger.close()
        assert (await waiting).created
        await store.close()


async def test_a_database_of_version_1_comes_forward(tmp_path: Path) -> None:
    _write_version_1(tmp_path / "parley.db")
    config = RuntimeConfig(home=str(tmp_path))
    stores = await asyncio.gather(*(open_store(config) for _ in range(3)))
    store = stores[0]
    assert (await store.facts()).schema_version == 3
    done = await store.get("done", "default")
    assert done is not None
    assert (done["status"], done["user"], done["attempts"], done["last_seq"]) == ("completed", "ann", 1, 2)
    assert done["result"]["answer"] == "85" and done["finished_at"] == 30.0
    assert [(e.seq, e.type, e.data) for e in await store.events("done", "default")] == [
        (1, "run.started", {"a": 1}), (2, "run.completed", {"a": 1}),
    ]  # fmt: skip
    assert [t.content for t in await store.history("c", "default", 10)] == ["q", "85"]
    claimed = {run.lease.run_id: run for run in await store.claim_next("one", LONG_S, 3, 10)}
    assert set(claimed) == {"open", "cut off"}
    assert claimed["cut off"].last_seq == 1 and claimed["cut off"].order.attempt == 2
    assert claimed["open"].order.user == "ann" and 290 < claimed["open"].order.deadline_s <= 300
    assert claimed["cut off"].order.deadline_s == pytest.approx(77, abs=5)
    lease = claimed["cut off"].lease
    await store.commit(lease, write(lease, 2, "run.started"))
    assert await types_of(store, "cut off") == ["run.started", "run.started"]
    for one in stores:
        await one.close()
    names = sqlite3.connect(tmp_path / "parley.db").execute("SELECT name FROM sqlite_schema").fetchall()
    assert not [name for (name,) in names if name.startswith("first_")]


def _write_version_1(path: Path) -> None:
    """A file as the first released version left it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)")
    for statement in SQLITE_FIRST:
        connection.execute(statement)
    connection.execute("INSERT INTO migrations VALUES (1, 1.0)")
    request = {"prompt": "q", "flow_type": "linear"}
    for run_id, status, attempt, result, finished, deadline_s in (
        ("done", "completed", 1, json.dumps({"answer": "85", "status": "completed"}), 30.0, None),
        ("open", "queued", 0, None, None, None),
        ("cut off", "running", 1, None, None, 77),
    ):
        asked = json.dumps({**request, "deadline_s": deadline_s})
        connection.execute(
            "INSERT INTO runs VALUES"
            " (?, 'default', 'ann', 'q', 'linear', 'v', ?, ?, 'c', ?, ?, NULL, 10.0, 20.0, ?)",
            (run_id, status, attempt, asked, result, finished),
        )
    events = (("done", 1, "run.started"), ("done", 2, "run.completed"), ("cut off", 1, "run.started"))
    for row in events:
        connection.execute("INSERT INTO events VALUES (?, ?, 1.0, ?, NULL, 1, '{\"a\": 1}')", row)
    connection.commit()
    connection.close()
