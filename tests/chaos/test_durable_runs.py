"""kill -9 of parts of the runtime under durable runs: none is lost, and their followers miss nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import pytest

from registries.contracts.runs import TERMINAL_EVENTS, RunEvent
from serve_app.client import AsyncClient, Retries
from tests.chaos.background_runs import BackgroundRuns, held_by, problems_in
from tests.chaos.engine.checker import event_problems
from tests.chaos.engine.scale import scaled
from tests.chaos.test_kills import processes
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(200)]
SLOW = {"creator": "slow", "challenger": "slow", "refiner": "slow"}
RUNNER = "ServeReplica:parley:FlowRunner"
INGRESS = "ServeReplica:parley:Ingress"


@pytest.fixture
async def session(cluster: RunningCluster) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(cluster.base_url, headers=cluster.headers, timeout=timeout) as made:
        yield made


def kill(cluster: RunningCluster, title: str) -> None:
    """SIGKILL to every process of that title."""
    victims = processes(cluster, title)
    assert victims, f"no process is called {title}"
    for victim in victims:
        victim.send_signal(signal.SIGKILL)


async def test_background_runs_outlive_their_runners(
    cluster: RunningCluster, session: aiohttp.ClientSession
) -> None:
    runs = BackgroundRuns(cluster, session, models=SLOW)

    async def hands_full() -> bool:
        """Whether runners that live hold several runs: those of a dead one are still called running."""
        return await held_by(cluster, {process.pid for process in processes(cluster, RUNNER)}) >= 8

    reference = await runs.reference()
    for _ in range(scaled(3, 12)):
        await runs.order(10)
        ends_at = time.monotonic() + paced(30)
        while not await hands_full():
            # The first may have ended before the last was there.
            assert time.monotonic() < ends_at, "the runners never hold so many"
            await runs.order(2)
        kill(cluster, RUNNER)
    killed_at = time.monotonic()
    await runs.until_ended(60, statuses={"completed"})
    print(f"\nthe last run completed {time.monotonic() - killed_at:.1f} s after the last kill")
    assert await runs.cut_off() >= 8
    assert await runs.problems(reference) == []
    # A long queue makes Serve start more than the one; none is left over from before a kill.
    assert 1 <= len(processes(cluster, RUNNER)) <= cluster.config.runner_max_replicas


async def test_a_reader_that_comes_back_misses_nothing_though_the_runner_was_killed(
    cluster: RunningCluster, session: aiohttp.ClientSession
) -> None:
    runs = BackgroundRuns(cluster, session, models={"challenger": "slow-start"})
    (run_id,) = await runs.order(1)
    first = await read_events(session, run_id, 0, stop_at="node.started")
    await until_node_started(session, run_id, "challenger")
    kill(cluster, RUNNER)
    # Attached while no runner lives, cut off in the middle, and back again with the last id that was seen.
    second = await read_events(session, run_id, first[-1].seq, stop_at="run.started")
    rest = await read_events(session, run_id, second[-1].seq)
    seen = [*first, *second, *rest]
    assert event_problems(seen) == []
    assert seen[-1].type == "run.completed"
    assert sum(event.type == "run.started" for event in seen) == 2
    async with session.get(f"/api/runs/{run_id}") as answer:
        log = (await answer.json())["execution_log"]
    assert [event.model_dump(mode="json") for event in seen] == log


async def test_clients_follow_their_runs_through_killed_ingresses(
    cluster: RunningCluster, session: aiohttp.ClientSession
) -> None:
    runs = BackgroundRuns(cluster, session, models={"creator": "slow-start", "challenger": "slow-start"})
    run_ids = await runs.order(4)
    seen: dict[str, list[RunEvent]] = {run_id: [] for run_id in run_ids}
    reattached: list[float] = []
    retries = Retries(on_reattach=lambda error, wait_s, failed: reattached.append(wait_s))

    async def follow(client: AsyncClient, run_id: str) -> None:
        async for event in client.events(run_id):
            if event.type != "node.token":
                seen[run_id].append(event)

    def all_in(node: str) -> bool:
        return all(
            any(e.type == "node.started" and e.node == node for e in events) for events in seen.values()
        )

    client = AsyncClient(cluster.base_url, cluster.api_key, retries=retries)
    async with client, asyncio.TaskGroup() as group:
        for run_id in run_ids:
            group.create_task(follow(client, run_id))
        for node in ("creator", "challenger"):
            await until(partial(all_in, node), 40)
            kill(cluster, INGRESS)
    assert len(reattached) >= len(run_ids), "no connection was cut: the fault tested nothing"
    for run_id, events in seen.items():
        assert event_problems(events) == [], run_id
        assert events[-1].type == "run.completed"
    assert await problems_in(cluster, run_ids) == []


async def read_events(
    session: aiohttp.ClientSession, run_id: str, after: int, stop_at: str | None = None
) -> list[RunEvent]:
    """Durable events after that number, as an EventSource reads them, which is cut off at ``stop_at``."""
    events: list[RunEvent] = []
    headers = {"last-event-id": str(after)} if after else {}
    async with session.get(f"/api/runs/{run_id}/events", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            fact: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
            if fact["type"] == "node.token":
                continue
            events.append(RunEvent.model_validate(fact))
            if events[-1].type == stop_at:
                return events
    assert stop_at is None and events and events[-1].type in TERMINAL_EVENTS, "the stream ended too early"
    return events


async def until_node_started(session: aiohttp.ClientSession, run_id: str, node: str) -> None:
    async def started() -> bool:
        async with session.get(f"/api/runs/{run_id}") as answer:
            log = (await answer.json())["execution_log"]
        return any(event["type"] == "node.started" and event["node"] == node for event in log)

    await until(started, 20)
