"""The database goes away and comes back while runs come and go through: nothing is lost, nobody exits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from actors.stores.open_store import open_store
from actors.stores.records import IdempotencyKey
from actors.stores.store import Store
from registries.contracts.config import LeaseConfig
from registries.contracts.errors import StoreError
from tests.chaos.database_outages import shuffled_outages
from tests.chaos.engine.checker import TENANT, calls_in, problems_of
from tests.chaos.engine.runs import config_for, new_run, reference_result, run_id_of, spec_for
from tests.chaos.engine.scale import scaled
from tests.chaos.engine.stage import Stage, all_ended, engines
from tests.machine_pace import paced
from tests.own_server import OwnServer
from tests.polling import until
from tests.postgres_server import own_postgres
from tests.redis_server import own_redis

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(scaled(150, 500))]
RUNS, OUTAGES, LONGEST_S = scaled(80, 500), scaled(3, 12), scaled(2.0, 5.0)
MET_S = 2.0
"""A frozen server is noticed two seconds after somebody asked it (actors.stores.outage_watch)."""
PAUSE_S = 0.1
LEASES = {
    "leases that outlive an outage": LeaseConfig(ttl_s=10.0, scan_s=0.5, max_deaths=3),
    "leases that run out in it": LeaseConfig(ttl_s=1.0, scan_s=0.2, max_deaths=1_000),
}


async def _bring_outages(
    server: OwnServer, dice: random.Random, stage: Stage, store: Store, refusals: list[StoreError]
) -> None:
    """One after another, of every kind; no engine ends by them."""
    for number, outage in enumerate(shuffled_outages(OUTAGES, dice)):
        # Leases are renewed every second: two outages without a renewal between them are one.
        await asyncio.sleep(dice.uniform(2.0, 3.0))
        away_s = dice.uniform(0.0, LONGEST_S) if number else LONGEST_S
        print(f"{outage.__name__} for {away_s:.2f} s")
        async with outage(server), asyncio.TaskGroup() as group:
            if not number:
                # Some of the short ones are over before anybody is refused: this one is not.
                group.create_task(_be_refused(store, refusals))
            await asyncio.sleep(away_s)
        assert all(engine.is_alive() for engine in stage.engines)


async def _be_refused(store: Store, refusals: list[StoreError]) -> None:
    """Read until that is refused.

    The client that submits may never be: its only write, under way when the server froze, is waited for.
    """
    async with asyncio.timeout(paced(MET_S)):
        while True:
            try:
                await store.get(run_id_of(0), TENANT)
            except StoreError as error:
                _note(error, refusals)
                return
            await asyncio.sleep(PAUSE_S)


def _note(refusal: StoreError, refusals: list[StoreError]) -> None:
    assert refusal.retry_after_s, "a client is not told when to come again"
    refusals.append(refusal)


async def _submit(
    store: Store, at_least: int, pace_s: float, over: asyncio.Event, refusals: list[StoreError]
) -> list[str]:
    """Accept runs as a client does that repeats what failed under its key, until the faults are over.

    The runs that were accepted; what refused one, which was sent again, is added to ``refusals``. So many
    runs at least, and as many more as it takes: a machine that needs long for the faults would else have none
    left to meet them.
    """
    run_ids: list[str] = []
    while len(run_ids) < at_least or not over.is_set():
        number = len(run_ids)
        new = new_run(number, key=IdempotencyKey(f"key-{number}", "digest"))
        while True:
            try:
                accepted = await store.accept(new)
                break
            except StoreError as error:
                _note(error, refusals)
                await asyncio.sleep(PAUSE_S)
        assert accepted.run_id == run_id_of(number)
        run_ids.append(accepted.run_id)
        await asyncio.sleep(pace_s)
    return run_ids


@pytest.mark.parametrize("lease", LEASES)
async def test_postgresql_stopped_killed_and_frozen_under_load(
    tmp_path: Path, dice: random.Random, lease: str
) -> None:
    reference = await reference_result(tmp_path / "reference")
    with own_postgres() as server:
        config = config_for(tmp_path / "outages", store_url=server.url)
        config = config.model_copy(update={"lease": LEASES[lease]})
        store = await open_store(config)
        async with engines(spec_for(config, call_s=0.05), 2) as stage:
            pace_s = 0.5 * OUTAGES * (3.0 + LONGEST_S) / RUNS
            over = asyncio.Event()
            refusals: list[StoreError] = []
            submitting = asyncio.create_task(_submit(store, RUNS, pace_s, over, refusals))
            # A runtime that starts without its database says so and ends; these have started.
            await until(lambda: len({call["pid"] for call in calls_in(stage.journal)}) == 2, 30)
            await _bring_outages(server, dice, stage, store, refusals)
            over.set()
            run_ids = await submitting
            await all_ended(store, run_ids, scaled(60, 240))
            assert (stage.kills, stage.started) == (0, 2), "an engine ended"
        problems = await problems_of(store, run_ids, reference, stage.journal)
        runs = [await store.get(run_id, TENANT) for run_id in run_ids]
        await store.close()
    assert not problems, "\n".join(problems[:20])
    assert refusals, "no outage met a client"
    deaths = sum(run["deaths"] for run in runs if run is not None)
    attempts = sum(run["attempts"] for run in runs if run is not None)
    print(
        f"{len(refusals)} requests refused, {attempts} attempts of {len(runs)} runs, {deaths} deaths counted"
    )
    if LEASES[lease].ttl_s > LONGEST_S:
        # Nobody died: a run that several outages met must not be parked for it.
        assert deaths == 0


def _kill_redis(server: OwnServer) -> None:
    server.kill()
    server.start()


def _flush_redis(server: OwnServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def _freeze_redis(server: OwnServer) -> None:
    server.freeze()
    time.sleep(0.7)
    server.thaw()


REDIS_FAULTS: tuple[Callable[[OwnServer], None], ...] = (_kill_redis, _flush_redis, _freeze_redis)


async def test_redis_killed_flushed_and_frozen_under_load_loses_nothing(
    tmp_path: Path, dice: random.Random
) -> None:
    reference = await reference_result(tmp_path / "reference")
    with own_redis() as server:
        config = config_for(tmp_path / "redis", redis_url=server.url, instance="chaos")
        config = config.model_copy(update={"lease": LEASES["leases that outlive an outage"]})
        store = await open_store(config)
        async with engines(spec_for(config, call_s=0.05), 2) as stage:
            over = asyncio.Event()
            refusals: list[StoreError] = []
            submitting = asyncio.create_task(_submit(store, RUNS, 0.04, over, refusals))
            for number in range(scaled(6, 30)):
                await asyncio.sleep(dice.uniform(0.1, 0.6))
                fault = REDIS_FAULTS[number % len(REDIS_FAULTS)]
                print(fault.__name__)
                await asyncio.to_thread(fault, server)
            over.set()
            run_ids = await submitting
            assert not refusals, "the hot tier is no reason to refuse"
            await all_ended(store, run_ids, 60)
            assert (stage.kills, stage.started) == (0, 2), "an engine ended"
        problems = await problems_of(store, run_ids, reference, stage.journal)
        runs = [await store.get(run_id, TENANT) for run_id in run_ids]
        await store.close()
    assert not problems, "\n".join(problems[:20])
    assert all(run is not None and run["attempts"] == 1 for run in runs)
