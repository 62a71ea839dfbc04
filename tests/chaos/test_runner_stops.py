"""Serve stops a runner in the middle of its runs: they end, or go on elsewhere, and no death is counted."""

from __future__ import annotations

import asyncio
import time
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
"""17 s a node: such a run takes longer than Serve lets a replica live that it has told to stop."""


def deploy_runner(config: RuntimeConfig, more_slots: int) -> None:
    """A new version of the runner alone: the front door's stays what it is, from the second time on."""
    from ray import serve

    from actors.flow_runner import flow_runner_app
    from serve_app.ingress import ingress_deployment

    changed = config.model_copy(update={"runner_max_ongoing": config.runner_max_ongoing + more_slots})
    # Without a version Serve takes every deployment of an application for changed.
    front = ingress_deployment(config).options(version="the same", _internal=True)
    application: Any = front.bind(config.model_dump_json(), flow_runner_app(changed))
    serve.run(application, name="parley", route_prefix="/")


async def streamed(client: AsyncClient, request: RunRequest) -> list[RunEvent]:
    return [event async for event in client.stream_run(request) if event.type != "node.token"]


async def test_runs_of_a_runner_that_serve_stops_count_no_death(driver: RunningCluster) -> None:
    await asyncio.to_thread(deploy_runner, driver.config, 1)
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
        await asyncio.to_thread(deploy_runner, driver.config, 2)
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
    rows = await rows_of(driver, run_ids)
    assert {run_id: row["deaths"] for run_id, row in rows.items() if row["deaths"]} == {}
    assert {rows[run_id]["attempts"] for run_id in (*attended, *long.accepted)} == {2}
    assert await problems_in(driver, run_ids) == []


async def rows_of(cluster: RunningCluster, run_ids: list[str]) -> dict[str, Any]:
    store = await open_store(cluster.config)
    try:
        return {run_id: await store.get(run_id, TENANT) for run_id in run_ids}
    finally:
        await store.close()
