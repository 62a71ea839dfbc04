"""What was acknowledged is there afterwards, whoever died meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import RunWrite
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, StoreError, ValidationError
from tests.conformance.stores.sample_runs import (
    LONG_S,
    checkpoint,
    end,
    event,
    new_run,
    status_of,
    take,
    types_of,
    write,
)
from tests.machine_pace import paced


async def test_a_bad_write_costs_its_neighbours_nothing(store: Store) -> None:
    await store.accept(new_run("r0"))
    outcomes = await asyncio.gather(
        *(store.accept(new_run(f"r{number}")) for number in range(20)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [Conflict]
    for number in range(20):
        assert await types_of(store, f"r{number}") == ["run.queued"]


async def test_reads_see_what_was_acknowledged(store: Store) -> None:
    async def one(number: int) -> None:
        claimed = await take(store, f"r{number}")
        await store.commit(claimed.lease, write(claimed.lease, 2, "run.started"))
        assert len(await store.events(f"r{number}", "default")) == 2

    await asyncio.gather(*(one(number) for number in range(30)))


async def test_giving_up_waiting_does_not_break_the_others(store: Store) -> None:
    writes = [asyncio.create_task(store.accept(new_run(f"r{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in writes[::2]:
        task.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    for number in range(1, 20, 2):
        assert await status_of(store, f"r{number}") == "queued"


async def test_a_closed_store_says_so(config: RuntimeConfig) -> None:
    store = await open_store(config)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.accept(new_run("r1"))
    with pytest.raises(StoreError):
        await store.get("r1", "default")


async def test_closing_finishes_what_was_handed_in(config: RuntimeConfig) -> None:
    store = await open_store(config)
    writes = [asyncio.create_task(store.accept(new_run(f"r{number}"))) for number in range(30)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    reopened = await open_store(config)
    assert (await reopened.queue()).queued == 30
    await reopened.close()


async def test_several_openings_at_once_make_one_schema(config: RuntimeConfig) -> None:
    stores = await asyncio.gather(*(open_store(config) for _ in range(6)))
    facts = [await store.facts() for store in stores]
    assert {fact.schema_version for fact in facts} == {3}
    assert facts[0].backend in config.store_url.replace("postgres:", "postgresql:")
    assert facts[0].details["size_bytes"] > 0
    await asyncio.gather(*(store.close() for store in stores))


def _write_runs(config_json: str, name: str, count: int) -> None:
    async def main() -> None:
        store = await open_store(RuntimeConfig.model_validate_json(config_json))
        for number in range(count):
            claimed = await take(store, f"{name}-{number}")
            await store.commit(claimed.lease, write(claimed.lease, 2, "run.started", "node.completed"))
            await end(store, claimed, seq=4)
        await store.close()

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
    for run_id in (f"{name}-{number}" for name in names for number in range(25)):
        assert await status_of(store, run_id) == "completed"
        assert await types_of(store, run_id) == [
            "run.queued",
            "run.started",
            "node.completed",
            "run.completed",
        ]
    await store.close()


def _write_until_killed(config_json: str, acknowledged: str) -> None:
    async def one(store: Store, name: str, report: object) -> None:
        for number in range(100_000):
            run_id = f"{name}-{number}"
            claimed = await take(store, run_id, ttl_s=0.25)
            state = RunWrite((event(run_id, 2, "run.started"),), (checkpoint(run_id),))
            await store.commit(claimed.lease, state)
            print(run_id, file=report, flush=True)  # type: ignore[call-overload]

    async def main() -> None:
        store = await open_store(RuntimeConfig.model_validate_json(config_json))
        with open(acknowledged, "a") as report:
            await asyncio.gather(*(one(store, f"k{number}", report) for number in range(4)))

    asyncio.run(main())


async def test_a_killed_writer_loses_no_acknowledged_run(config: RuntimeConfig, tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=_write_until_killed, args=(config.model_dump_json(), str(acknowledged)))
    writer.start()
    deadline = time.monotonic() + paced(60)
    while not (acknowledged.exists() and acknowledged.read_text().count("\n") >= 40):
        assert time.monotonic() < deadline and writer.is_alive()
        await asyncio.sleep(0.01)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    await asyncio.to_thread(writer.join, 10)
    lines = acknowledged.read_text()
    known = lines[: lines.rfind("\n")].split("\n")
    store = await open_store(config)
    for run_id in known:
        assert await types_of(store, run_id) == ["run.queued", "run.started"]
        assert await store.checkpoint(run_id, "") is not None
    # Whoever comes next is not held up by the dead, and takes its runs over.
    await store.accept(new_run("after"))
    taken: set[str] = set()
    deadline = time.monotonic() + paced(20)
    while not set(known) <= taken:
        assert time.monotonic() < deadline
        taken |= {run.lease.run_id for run in await store.claim_next("two", LONG_S, 3, 100)}
        await asyncio.sleep(0.02)
    await store.close()


async def test_an_unknown_scheme_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="sqlite") as caught:
        await open_store(RuntimeConfig(home=str(tmp_path), store_url="oracle://x"))
    assert caught.value.param == "store_url"
