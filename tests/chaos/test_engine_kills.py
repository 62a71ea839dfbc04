"""kill -9 of the engine at every boundary: nothing acknowledged is lost, nothing committed runs again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from registries.contracts.config import LeaseConfig, RuntimeConfig
from tests.chaos.engine.checker import TENANT, calls_in, event_problems, problems_of
from tests.chaos.engine.process import BOUNDARIES, EngineSpec, Fate
from tests.chaos.engine.stage import all_ended, engines, new_run
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(280)]
RUNS = 200
KILLS = 56


def config_for(folder: Path, **changes: Any) -> RuntimeConfig:
    lease = LeaseConfig(ttl_s=1.0, scan_s=0.2, max_deaths=changes.pop("max_deaths", 1_000))
    return RuntimeConfig(home=str(folder), lease=lease, **changes)


def spec_for(config: RuntimeConfig, **changes: Any) -> EngineSpec:
    return EngineSpec(
        config_json=config.model_dump_json(), journal=str(Path(config.home) / "journal.jsonl"), **changes
    )


async def reference_result(folder: Path, flow: str = "challenge") -> dict[str, Any]:
    """The same request without any fault."""
    config = config_for(folder)
    store = await open_store(config)
    await store.accept(new_run(0, flow))
    async with engines(spec_for(config), 1):
        await all_ended(store, ["run-00000"], 30)
    run = await store.get("run-00000", TENANT)
    await store.close()
    assert run is not None
    result: dict[str, Any] = run["result"]
    return result


async def test_killed_at_every_boundary_every_run_ends_once_and_right(tmp_path: Path) -> None:
    reference = await reference_result(tmp_path / "reference")
    assert reference["status"] == "completed"
    config = config_for(tmp_path / "killed")
    seed = random.randrange(2**32)
    print(f"\nseed {seed}")
    dice = random.Random(seed)
    fates = [Fate(BOUNDARIES[n % len(BOUNDARIES)], dice.randint(1, 6)) for n in range(KILLS)]
    dice.shuffle(fates)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n))).run_id for n in range(RUNS)]
    async with engines(spec_for(config), 2, fates) as stage:
        await all_ended(store, run_ids, 240)
        kills = stage.kills
    problems = await problems_of(store, run_ids, reference)
    await store.close()
    assert kills >= 50, f"only {kills} kills happened before all runs had ended"
    assert not problems, "\n".join(problems[:20])
    begun = Counter(call["call"] for call in calls_in(stage.journal) if call["what"] == "begin")
    in_flight = kills * stage.spec.slots
    extra = sum(begun.values()) - len(begun)
    print(f"{kills} kills, {extra} calls made again (at most {in_flight} were in flight)")
    assert extra <= in_flight


async def test_a_zombie_writes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n))).run_id for n in range(4)]
    spec = spec_for(config, call_s=0.6)
    async with engines(spec, 1) as stage:
        await until(lambda: len(calls_in(stage.journal)) >= 4, 20)
        zombie = stage.engines[0]
        assert zombie.pid is not None
        os.kill(zombie.pid, signal.SIGSTOP)
        second = stage.start_one()
        stage._wanted = 2
        await all_ended(store, run_ids, 60)
        before = [await store.events(run_id, TENANT) for run_id in run_ids]
        written = len(calls_in(stage.journal))
        os.kill(zombie.pid, signal.SIGCONT)
        # Long enough for calls that were in flight to end and for a next node, had it been allowed, to begin.
        await asyncio.sleep(2.0)
        begun = [c for c in calls_in(stage.journal)[written:] if c["what"] == "begin"]
        assert begun == [], "the zombie began a call after it came back"
        assert [await store.events(run_id, TENANT) for run_id in run_ids] == before
        assert zombie.is_alive() and second.is_alive()
    assert await problems_of(store, run_ids) == []
    await store.close()


async def test_everything_killed_at_once_goes_on_by_itself(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n))).run_id for n in range(40)]
    spec = spec_for(config, call_s=0.1)
    async with engines(spec, 2) as stage:
        await until(lambda: len(calls_in(stage.journal)) >= 30, 20)
        stage.kill_all()
        await all_ended(store, run_ids, 60)
    assert await problems_of(store, run_ids) == []
    await store.close()


async def test_a_run_that_kills_its_runners_is_parked_and_the_others_go_on(tmp_path: Path) -> None:
    config = config_for(tmp_path, max_deaths=3)
    store = await open_store(config)
    poison = (await store.accept(new_run(0))).run_id
    fates = [Fate("node_start", 1)] * 3
    async with engines(spec_for(config, slots=1), 1, fates) as stage:
        await until(lambda: stage.kills >= 3, 60)
        healthy = [(await store.accept(new_run(n))).run_id for n in range(1, 6)]
        await all_ended(store, [poison, *healthy], 60)
    run = await store.get(poison, TENANT)
    assert run is not None and run["status"] == "failed" and run["deaths"] == 3
    assert run["result"]["error"]["code"] == "runner_died"
    assert "creator" in run["result"]["error"]["message"]
    assert event_problems(await store.events(poison, TENANT)) == []
    assert await problems_of(store, healthy) == []
    again = await store.restart(poison, TENANT, 60)
    async with engines(spec_for(config), 1):
        await all_ended(store, [again.run_id], 30)
    run = await store.get(poison, TENANT)
    assert run is not None and run["status"] == "completed"
    await store.close()
