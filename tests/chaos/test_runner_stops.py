"""Serve stops a runner in the middle of its runs: they end, or go on elsewhere, and no death is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

from actors.stores.open_store import open_store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunEvent, RunRequest
from serve_app.client import AsyncClient, Retries
from tests.chaos.background_runs import QUESTION, BackgroundRuns, held_by, problems_in
from tests.chaos.engine.checker import TENANT
from tests.chaos.test_kills import processes
from tests.polling import until
from tests.runtime_cluster import RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
RUNNER = "ServeReplica:parley:FlowRunner"
LONG = {"creator": "patient", "challenger": "patient", "refiner": "patient"}
"""10 s a node: such a run takes longer than Serve lets a replica live that it has told to stop."""
DRAIN_S = 3.0


async def deploy_runner(config: RuntimeConfig, more_slots: int) -> None:
    """A new version of the runner alone: the front door's stays what it is, from the second time on."""
    await asyncio.to_thread(_hand_over, config, more_slots)
    state = ""

    async def is_running() -> bool:
        nonlocal state
        state = await asyncio.to_thread(_application_state)
        return state.startswith("RUNNING")

    try:
        await until(is_running, 60, every_s=0.5)
    except TimeoutError:
        raise AssertionError(f"the new version does not run: {state}") from None


def _hand_over(config: RuntimeConfig, more_slots: int) -> None:
    from ray.serve import RunTarget, run_many

    from actors.flow_runner import flow_runner_app
    from serve_app.ingress import ingress_deployment

    # One replica: the runs of this test shall all be held by the one that is stopped.
    slots = config.runner_max_ongoing + more_slots
    limits = {"runner_max_ongoing": slots, "runner_max_replicas": 1, "runner_drain_s": DRAIN_S}
    changed = config.model_copy(update=limits)
    # Without a version Serve takes every deployment of an application for changed.
    front = ingress_deployment(config).options(version="the same", _internal=True)
    application: Any = front.bind(config.model_dump_json(), flow_runner_app(changed))
    # Not serve.run: it waits without an end for replicas that do not come.
    target = RunTarget(application, name="parley", route_prefix="/")
    run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def _application_state() -> str:
    from ray import serve

    application = serve.status().applications["parley"]
    parts = {name: (d.status, d.message, d.replica_states) for name, d in application.deployments.items()}
    return f"{application.status.value} {application.message} {parts}"


async def streamed(client: AsyncClient, request: RunRequest) -> list[RunEvent]:
    return [event async for event in client.stream_run(request) if event.type != "node.token"]


async def test_runs_of_a_runner_that_serve_stops_count_no_death(driver: RunningCluster) -> None:
    await deploy_runner(driver.config, 1)
    await until(lambda: len(processes(driver, RUNNER)) == 1, 90, every_s=0.2)
    (stopped,) = processes(driver, RUNNER)
    reattached: list[str] = []
    retries = Retries(on_reattach=lambda error, wait_s, failed: reattached.append(str(error)))
    request = RunRequest(prompt=QUESTION, flow_type="challenge", models=LONG, deadline_s=200)

    async def all_held() -> bool:
        return await held_by(driver, {stopped.pid}) >= 5

    async with (
        aiohttp.ClientSession(driver.base_url, headers=driver.headers) as session,
        AsyncClient(driver.base_url, driver.api_key, retries=retries) as client,
        asyncio.TaskGroup() as group,
    ):
        answer = group.create_task(client.run(request))
        events = group.create_task(streamed(client, request))
        long = BackgroundRuns(driver, session, models=LONG, deadline_s=200)
        short = BackgroundRuns(driver, session)
        await long.order(3)
        await until(all_held, 30, every_s=0.2)
        told_at = time.monotonic()
        await deploy_runner(driver.config, 2)
        while stopped.is_running() and time.monotonic() - told_at < 60:
            await short.order(1)
            await asyncio.sleep(1.0)
        print(f"\nthe runner was gone {time.monotonic() - told_at:.1f} s after it was told to stop")
        await short.until_ended(60, statuses={"completed"})
        await long.until_ended(120, statuses={"completed"})
    assert answer.result().status == "completed" and events.result()[-1].type == "run.completed"
    assert reattached == [], "the front door was to stay"
    attended = [answer.result().run_id, events.result()[-1].run_id]
    run_ids = [*attended, *long.accepted, *short.accepted]
    deaths, handed_over = await story_of(driver, run_ids)
    assert sum(deaths.values()) == 0, deaths
    assert {handed_over[run_id] for run_id in (*attended, *long.accepted)} == {1}
    assert await problems_in(driver, run_ids) == []


async def story_of(cluster: RunningCluster, run_ids: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Deaths of each run, and how often it was handed over.

    Not attempts: a runner that gets no processor for longer than its leases last takes its own runs up anew.
    """
    deaths: Counter[str] = Counter()
    handed_over: Counter[str] = Counter()
    store = await open_store(cluster.config)
    try:
        for run_id in run_ids:
            row = await store.get(run_id, TENANT)
            assert row is not None
            deaths[run_id] = row["deaths"]
            events = await store.events(run_id, TENANT)
            reasons = [str(event.data["reason"]) for event in events if event.type == "run.released"]
            handed_over[run_id] = sum(reason.startswith("its runner stops") for reason in reasons)
    finally:
        await store.close()
    return deaths, handed_over
