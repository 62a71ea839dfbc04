"""kill -9 of the engine at every boundary: nothing acknowledged is lost, nothing committed runs again."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from tests.chaos.engine.checker import TENANT, calls_in, event_problems, problems_of
from tests.chaos.engine.process import CHAIN, Fate
from tests.chaos.engine.runs import config_for, new_run, reference_result, runs_under_kills, spec_for
from tests.chaos.engine.scale import scaled
from tests.chaos.engine.stage import all_ended, engines
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(scaled(280, 600))]
SIZES = [
    pytest.param("sqlite", scaled(200, 800), scaled(50, 200), id="sqlite"),
    pytest.param("postgresql", scaled(60, 300), scaled(15, 80), id="postgresql"),
    pytest.param("redis over sqlite", scaled(60, 300), scaled(15, 80), id="redis over sqlite"),
]
"""Backend, runs, kills at least."""


@pytest.mark.parametrize(("backend_settings", "runs", "least_kills"), SIZES, indirect=["backend_settings"])
async def test_killed_at_every_boundary_every_run_ends_once_and_right(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any], runs: int, least_kills: int
) -> None:
    reference = await reference_result(tmp_path / "reference")
    config = config_for(tmp_path / "killed", **backend_settings)
    wanted = least_kills + 6
    # Every boundary once, in any order, before any of them a second time.
    rounds = [dice.sample(CHAIN, len(CHAIN)) for _ in range(0, wanted, len(CHAIN))]
    fates = [Fate(boundary, dice.randint(1, 6)) for one in rounds for boundary in one]
    store = await open_store(config)
    async with engines(spec_for(config), 2, fates) as stage:

        def enough() -> bool:
            return stage.kills >= least_kills and stage.spec.deaths().keys() == set(CHAIN)

        run_ids = await runs_under_kills(store, stage, runs, enough, scaled(240, 560))
        kills = stage.kills
    problems = await problems_of(store, run_ids, reference, stage.journal)
    await store.close()
    assert not problems, "\n".join(problems[:20])
    begun = Counter(call["call"] for call in calls_in(stage.journal) if call["what"] == "begin")
    in_flight = kills * stage.spec.slots
    extra = sum(begun.values()) - len(begun)
    print(f"{kills} kills, {extra} calls made again (at most {in_flight} were in flight)")
    assert extra <= in_flight
    deaths = stage.spec.deaths()
    assert kills >= least_kills and deaths.keys() == set(CHAIN), deaths


async def test_everything_killed_at_once_goes_on_by_itself(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n))).run_id for n in range(40)]
    spec = spec_for(config, call_s=0.1)
    async with engines(spec, 2) as stage:
        await until(lambda: len(calls_in(stage.journal)) >= 30, 20)
        stage.kill_all()
        await all_ended(store, run_ids, 60)
    assert await problems_of(store, run_ids, journal=stage.journal) == []
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
