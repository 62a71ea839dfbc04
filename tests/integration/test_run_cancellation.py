"""Cancelling a run, and its deadline, reach the engine: the slot of the model is free two seconds after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from actors.stores.open_store import open_store
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster

FREE_S = 2.0
MODEL = "endless"


class Engine:
    """The slots of the model, asked at its replica."""

    def __init__(self) -> None:
        from ray import serve

        from actors.model_replica import model_app_name

        self._handle = serve.get_deployment_handle("ModelReplica", app_name=model_app_name(MODEL))

    async def running(self) -> int:
        status: dict[str, Any] = await self._handle.status.remote()
        return int(status["running"])

    async def until_running(self, count: int, timeout_s: float) -> None:
        async def reached() -> bool:
            return await self.running() == count

        await until(reached, timeout_s)


@pytest.fixture
async def engine(driver: RunningCluster) -> Engine:
    found = Engine()
    await found.until_running(0, 30)
    return found


@pytest.fixture
async def session(driver: RunningCluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(driver.base_url, headers=driver.headers) as made:
        yield made


async def endless_run(session: aiohttp.ClientSession, engine: Engine, **request: Any) -> str:
    """A background run whose first node is in the engine."""
    body = {"flow_type": "challenge", "prompt": "go on", "models": {"creator": MODEL}, **request}
    async with session.post("/api/runs", json=body) as answer:
        assert answer.status == 202, await answer.text()
        run_id = str((await answer.json())["run_id"])
    await engine.until_running(1, 20)
    return run_id


async def status_of(session: aiohttp.ClientSession, run_id: str) -> dict[str, Any]:
    async with session.get(f"/api/runs/{run_id}") as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def until_status(session: aiohttp.ClientSession, run_id: str, wanted: str) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await status_of(session, run_id))["status"] == wanted)

    await until(reached, 10)
    return await status_of(session, run_id)


async def test_cancelling_over_http(session: aiohttp.ClientSession, engine: Engine) -> None:
    run_id = await endless_run(session, engine)
    async with session.post(f"/api/runs/{run_id}/cancel") as answer:
        assert answer.status in (200, 202)
        assert (await answer.json())["status"] in ("running", "cancelled")
    await engine.until_running(0, FREE_S)
    run = await until_status(session, run_id, "cancelled")
    assert run["error"]["code"] == "cancelled"
    async with session.post(f"/api/runs/{run_id}/cancel") as answer:
        assert answer.status == 200 and (await answer.json())["status"] == "cancelled"


async def test_cancelling_when_nobody_tells_the_runner(
    driver: RunningCluster, session: aiohttp.ClientSession, engine: Engine
) -> None:
    run_id = await endless_run(session, engine)
    store = await open_store(driver.config)
    assert await store.cancel(run_id, "default") == "running"
    await engine.until_running(0, FREE_S)
    await store.close()
    await until_status(session, run_id, "cancelled")


async def test_the_deadline_of_a_background_run(session: aiohttp.ClientSession, engine: Engine) -> None:
    asked_at = time.monotonic()
    deadline_s = paced(1.0)
    run_id = await endless_run(session, engine, deadline_s=deadline_s)
    await asyncio.sleep(max(0.0, asked_at + deadline_s - time.monotonic()))
    await engine.until_running(0, FREE_S)
    run = await until_status(session, run_id, "failed")
    assert run["error"]["code"] == "budget_exceeded"
