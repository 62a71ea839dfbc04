"""Experts that run at the same time, under kills: who has answered and was committed is not asked again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from registries.contracts.runs import RunEvent
from tests.chaos.engine.checker import TENANT, problems_of
from tests.chaos.engine.process import BOUNDARIES, SIBLINGS, Fate
from tests.chaos.engine.runs import config_for, reference_result, runs_under_kills, spec_for
from tests.chaos.engine.scale import scaled
from tests.chaos.engine.stage import engines

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(scaled(120, 400))]
EXPERTS = frozenset({"security", "performance", "ux"})
RUNS, KILLS = scaled(40, 300), scaled(10, 60)


@pytest.mark.parametrize("backend_settings", ["sqlite", "postgresql"], indirect=True)
async def test_committed_siblings_never_run_again(
    tmp_path: Path, dice: random.Random, backend_settings: dict[str, Any]
) -> None:
    reference = await reference_result(tmp_path / "reference", "multi_perspective")
    config = config_for(tmp_path / "killed", **backend_settings)
    # Around the writes of single experts more often than anywhere else.
    places = (*BOUNDARIES, *("writes_after", "writes_before", "node_end") * 6)
    # Both of these for sure: of 14 throws one of them is missing about once in 36 times.
    thrown = [*sorted(SIBLINGS), *(dice.choice(places) for _ in range(KILLS - len(SIBLINGS)))]
    fates = [Fate(place, dice.randint(1, 12)) for place in dice.sample(thrown, KILLS)]
    store = await open_store(config)
    async with engines(spec_for(config, call_s=0.06, uneven=True), 2, fates) as stage:

        def enough() -> bool:
            return stage.kills >= KILLS and stage.spec.deaths().keys() >= SIBLINGS

        run_ids = await runs_under_kills(store, stage, RUNS, enough, scaled(90, 360), "multi_perspective")
        kills = stage.kills
    assert stage.spec.deaths().keys() >= SIBLINGS, stage.spec.deaths()
    assert await problems_of(store, run_ids, reference, stage.journal) == []
    split = [run_id for run_id in run_ids if is_split(await store.events(run_id, TENANT))]
    await store.close()
    print(f"{kills} kills, {len(split)} runs cut between two experts")
    assert len(split) >= 3, "hardly a run was cut after one expert and before another: this shows nothing"


def is_split(events: Sequence[RunEvent]) -> bool:
    """Whether some experts' ends were committed by one attempt and others' by a later one."""
    attempts = set()
    attempt = 0
    for event in events:
        if event.type == "run.started":
            attempt = event.attempt
        if event.type == "node.completed" and event.node in EXPERTS:
            attempts.add(attempt)
    return len(attempts) > 1
