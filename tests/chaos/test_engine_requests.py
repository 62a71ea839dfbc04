"""Whoever asks is killed while asking, engines too: each request is heeded once, whoever repeats it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import RunFilter
from actors.stores.store import Store
from registries.contracts.runs import TERMINAL_STATUSES, RunEvent
from tests.chaos.engine.checker import TENANT, event_problems, problems_of
from tests.chaos.engine.clients import Asked, ask_under_kills
from tests.chaos.engine.process import BOUNDARIES, Fate
from tests.chaos.engine.runs import config_for, new_run, reference_result, run_id_of, spec_for
from tests.chaos.engine.scale import scaled
from tests.chaos.engine.stage import all_ended, engines
from tests.conformance.stores.sample_runs import end
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(scaled(120, 400))]
both = pytest.mark.parametrize("backend_settings", ["sqlite", "postgresql"], indirect=True)
RUNS, CLIENT_KILLS, ENGINE_KILLS = scaled(18, 120), scaled(6, 40), scaled(4, 30)


def _fates(dice: random.Random) -> list[Fate]:
    return [Fate(dice.choice(BOUNDARIES), dice.randint(1, 4)) for _ in range(ENGINE_KILLS)]


def _count(events: Sequence[RunEvent], type: str) -> int:
    return sum(event.type == type for event in events)


async def _all_in(store: Store, run_ids: Sequence[str], status: str, timeout_s: float) -> None:
    async def there() -> bool:
        runs = [await store.get(run_id, TENANT) for run_id in run_ids]
        return all(run is not None and run["status"] == status for run in runs)

    await until(there, timeout_s, every_s=0.1)


@both
async def test_decisions_are_applied_once(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any]
) -> None:
    config = config_for(tmp_path / "home", **backend_settings)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n, "reviewed_challenge"))).run_id for n in range(RUNS)]
    requests = [
        Asked(f"{n}", "resume", f"key-{n}", n, {"action": "edit", "text": f"It is 85, says {n}."})
        if n % 2
        else Asked(f"{n}", "resume", f"key-{n}", n, {"action": "approve", "comment": f"{n}"})
        for n in range(RUNS)
    ]
    async with engines(spec_for(config), 2, _fates(dice)) as stage:
        await _all_in(store, run_ids, "waiting", scaled(60, 120))
        answers = await ask_under_kills(config, requests, tmp_path, dice, 2, CLIENT_KILLS)
        await all_ended(store, run_ids, scaled(60, 120))
    assert answers == {f"{n}": run_id_of(n) for n in range(RUNS)}
    assert await problems_of(store, run_ids, journal=stage.journal) == []
    for n, run_id in enumerate(run_ids):
        run, events = await store.get(run_id, TENANT), await store.events(run_id, TENANT)
        assert run is not None and run["status"] == "completed"
        assert run["result"]["answer"] == (f"It is 85, says {n}." if n % 2 else "48 + 37 = 85")
        assert (_count(events, "run.waiting"), _count(events, "run.resumed")) == (1, 1)
        decided = [e.data for e in events if e.type == "node.completed" and e.node == "approver"]
        assert [data["data"]["decision"] for data in decided] == ["edit" if n % 2 else "approve"]
        assert [data["data"]["comment"] for data in decided] == [None if n % 2 else f"{n}"]
    print(f"{stage.kills} engines killed, {CLIENT_KILLS} clients")
    await store.close()


@both
async def test_restarts_are_applied_once(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any]
) -> None:
    reference = await reference_result(tmp_path / "reference")
    config = config_for(tmp_path / "home", **backend_settings)
    store = await open_store(config)
    run_ids = [run_id_of(n) for n in range(RUNS)]
    for n in range(RUNS):
        claimed = await store.claim(new_run(n), "test", 60.0, 3)
        assert claimed is not None
        await end(store, claimed, "failed")
    requests = [Asked(f"{n}", "restart", f"key-{n}", n) for n in range(RUNS)]
    async with engines(spec_for(config), 2, _fates(dice)) as stage:
        await ask_under_kills(config, requests, tmp_path, dice, 2, CLIENT_KILLS)
        await all_ended(store, run_ids, scaled(60, 120))
        # Those who ask again although it has long ended get the same answer, and nothing happens.
        again = [await request.ask(store) for request in requests]
    assert again == run_ids
    assert await problems_of(store, run_ids, reference, stage.journal) == []
    for run_id in run_ids:
        assert _count(await store.events(run_id, TENANT), "run.restarted") == 1
    await store.close()


@both
async def test_cancellations_are_applied_once(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any]
) -> None:
    config = config_for(tmp_path / "home", **backend_settings)
    store = await open_store(config)
    flows = ("challenge", "reviewed_challenge", "multi_perspective")
    run_ids = [run_id_of(n) for n in range(RUNS)]
    for n in range(1, RUNS, 3):
        await store.accept(new_run(n, flows[1]))
    async with engines(spec_for(config), 1):
        await _all_in(store, run_ids[1::3], "waiting", 60)
    for n in (n for n in range(RUNS) if n % 3 != 1):
        await store.accept(new_run(n, flows[n % 3]))
    requests = [Asked(f"{n}", "cancel", f"key-{n}", n) for n in range(RUNS)]
    # Slow models and few slots: some wait for a human, some run, some are still in the queue.
    spec = spec_for(config, call_s=30.0, slots=4)
    async with engines(spec, 2, [Fate("claim", 1), Fate("node_start", dice.randint(1, 4))]) as stage:
        await until(lambda: stage.kills >= 2, 20)
        await ask_under_kills(config, requests, tmp_path, dice, 2, CLIENT_KILLS)
        await all_ended(store, run_ids, scaled(60, 120))
        assert [await request.ask(store) for request in requests] == run_ids
    for run_id in run_ids:
        run, events = await store.get(run_id, TENANT), await store.events(run_id, TENANT)
        assert run is not None and run["status"] == "cancelled"
        assert event_problems(events) == []
        assert (_count(events, "run.cancelled"), events[-1].type) == (1, "run.cancelled")
    await store.close()


@both
async def test_duplicates_of_clients_that_die_are_one_run(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any]
) -> None:
    config = config_for(tmp_path / "home", **backend_settings)
    store = await open_store(config)
    keys, duplicates = scaled(4, 20), 50
    # Every duplicate brings a run id of its own, as every HTTP request does.
    requests = [
        Asked(f"{k}-{n}", "accept", f"key-{k}", k * duplicates + n)
        for k in range(keys)
        for n in range(duplicates)
    ]
    dice.shuffle(requests)
    async with engines(spec_for(config), 1, _fates(dice)) as stage:
        answers = await ask_under_kills(config, requests, tmp_path, dice, 5, scaled(8, 60))
        by_key = {
            k: {run_id for name, run_id in answers.items() if name.startswith(f"{k}-")} for k in range(keys)
        }
        assert {len(run_ids) for run_ids in by_key.values()} == {1}, f"duplicates made other runs: {by_key}"
        run_ids = [run_id for found in by_key.values() for run_id in found]
        await all_ended(store, run_ids, 60)
        again = Counter([await request.ask(store) for request in requests])
    assert again == Counter(dict.fromkeys(run_ids, duplicates))
    listed = await store.list(TENANT, RunFilter(limit=1_000))
    assert sorted(run["run_id"] for run in listed) == sorted(run_ids), (
        "there are runs that nobody was told of"
    )
    assert {run["status"] for run in listed} <= TERMINAL_STATUSES
    assert await problems_of(store, run_ids, journal=stage.journal) == []
    await store.close()
