"""Killing a part of the runtime under load: nothing wrong is answered, and all is back by itself."""

from __future__ import annotations

import asyncio
import signal
import time

import aiohttp
import psutil
import pytest

from tests.chaos.load import RIGHT_ANSWER, Record, load
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster

BACK_S = 30.0
CALM_RIGHTS = 25
"""So many right answers in a row count as being back."""


def processes(cluster: RunningCluster, title: str) -> list[psutil.Process]:
    """Processes of the runtime whose title has these words."""
    found = []
    for process in cluster.processes():
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


async def kill_under_load(cluster: RunningCluster, title: str) -> Record:
    """Kill every process of that title while clients ask; returns when all is calm again."""
    async with load(cluster) as record:
        await until(lambda: record.rights_after_trouble >= 10, BACK_S)
        victims = processes(cluster, title)
        assert victims, f"no process is called {title}"
        killed_at = time.monotonic()
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        dead = {victim.pid for victim in victims}

        def back() -> bool:
            reborn = any(p.pid not in dead for p in processes(cluster, title))
            return reborn and record.rights_after_trouble >= CALM_RIGHTS

        await until(back, BACK_S, every_s=0.2)
        took = time.monotonic() - killed_at
    print(
        f"{title}: back in {took:.1f} s; right {record.right}, typed {dict(record.typed)}, cut {record.cut}"
    )
    return record


def no_harm(record: Record) -> None:
    assert record.wrong == []
    assert record.untyped == []


async def test_killing_gateway_state_fails_no_run(cluster: RunningCluster) -> None:
    record = await kill_under_load(cluster, "ray::GatewayState")
    no_harm(record)
    assert not record.typed and record.cut == 0


async def test_killing_a_flow_runner(cluster: RunningCluster) -> None:
    record = await kill_under_load(cluster, "ServeReplica:parley:FlowRunner")
    no_harm(record)
    assert record.cut == 0


async def test_killing_a_model_replica(cluster: RunningCluster) -> None:
    record = await kill_under_load(cluster, "ServeReplica:model-fast:ModelReplica")
    no_harm(record)
    assert record.cut == 0


async def test_killing_an_ingress(cluster: RunningCluster) -> None:
    record = await kill_under_load(cluster, "ServeReplica:parley:Ingress")
    assert record.wrong == []
    # HAProxy answers for a dead ingress itself: connections are cut or it says 5xx, and clients try again.
    assert all(status >= 500 for status, _ in record.untyped)


async def test_killing_the_serve_controller_fails_no_request(cluster: RunningCluster) -> None:
    record = await kill_under_load(cluster, "ray::ServeController")
    no_harm(record)
    assert not record.typed and record.cut == 0


async def test_an_expert_s_worker_killed_in_a_run(cluster: RunningCluster) -> None:
    models = dict.fromkeys(("security", "performance", "ux"), "slow-start")
    body = {"flow_type": "multi_perspective", "prompt": "What is 48 + 37?", "models": models}
    async with aiohttp.ClientSession(cluster.base_url, headers=cluster.headers) as session:
        asking = asyncio.create_task(session.post("/api/orchestrate", json=body))
        await until(lambda: len(processes(cluster, "ray::expert_task")) >= 3, 20)
        processes(cluster, "ray::expert_task")[0].send_signal(signal.SIGKILL)
        async with await asyncio.wait_for(asking, paced(40)) as answer:
            result = await answer.json()
    assert result["status"] == "completed"
    assert {node["status"] for node in result["nodes"]} == {"completed"}


@pytest.mark.parametrize("flow", ["linear", "challenge", "multi_perspective"])
async def test_everything_still_works_after_all_that(cluster: RunningCluster, flow: str) -> None:
    async with aiohttp.ClientSession(cluster.base_url, headers=cluster.headers) as session:
        body = {"flow_type": flow, "prompt": "What is 48 + 37?"}
        async with session.post("/api/orchestrate", json=body) as answer:
            result = await answer.json()
    assert result["status"] == "completed"
    if flow == "challenge":
        assert result["answer"] == RIGHT_ANSWER
