"""A runtime of two nodes on PostgreSQL: the database goes away for some seconds, then a node for good."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sized
from dataclasses import dataclass
from functools import partial

import aiohttp
import httpx
import pytest

from tests.chaos.background_runs import BackgroundRuns, held_by
from tests.chaos.engine.scale import scaled
from tests.chaos.second_node import SecondNode, fill_the_head, serve_on_the_head_only
from tests.chaos.test_kills import processes
from tests.own_server import OwnServer
from tests.polling import until
from tests.postgres_server import own_postgres
from tests.runtime_cluster import RunningCluster, running_cluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
RUNNER = "ServeReplica:parley:FlowRunner"
SLOTS = 8
AWAY_S = 4.0
MODELS = dict.fromkeys(("creator", "challenger", "refiner"), "slow")


@dataclass(frozen=True, slots=True)
class Nodes:
    """The runtime, its second node, and its database."""

    cluster: RunningCluster
    second: SecondNode
    database: OwnServer


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with (
        own_postgres() as database,
        running_cluster(
            serve_on_the_head_only,
            store_url=database.url,
            models=("slow",),
            runner_max_ongoing=SLOTS,
            runner_max_replicas=2,
            expert_workers=0,
        ) as cluster,
    ):
        await_ready(cluster)
        fill_the_head(cluster)
        yield Nodes(cluster, SecondNode(cluster), database)


def await_ready(cluster: RunningCluster) -> None:
    """Everything that the configuration asks for has its place."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{cluster.base_url}/api/ready", headers=cluster.headers).status_code != 200:
        assert time.monotonic() < deadline, "the runtime is not ready"
        time.sleep(0.1)


@pytest.fixture
async def session(nodes: Nodes) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    cluster = nodes.cluster
    async with aiohttp.ClientSession(cluster.base_url, headers=cluster.headers, timeout=timeout) as made:
        yield made


async def test_the_database_goes_away_under_load(nodes: Nodes, session: aiohttp.ClientSession) -> None:
    runs = BackgroundRuns(nodes.cluster, session, models=MODELS)
    reference = await runs.reference()
    alive = {process.pid for process in nodes.cluster.processes()}
    refused: Counter[int] = Counter()
    stop = asyncio.Event()

    async def client() -> None:
        """One run after another; an order that was refused is made again under its own key."""
        key = uuid.uuid4().hex
        while not stop.is_set():
            async with session.post("/api/runs", json=runs.body, headers={"idempotency-key": key}) as answer:
                if answer.status == 202:
                    runs.accepted.append(str((await answer.json())["run_id"]))
                    key = uuid.uuid4().hex
                else:
                    refused[answer.status] += 1
                    assert answer.status == 503, await answer.text()
                    assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.25)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client())
        for _ in range(scaled(1, 6)):
            accepted, refused_before = len(runs.accepted), refused[503]
            await until(partial(has_grown, runs.accepted, accepted + 16), 30)
            await asyncio.to_thread(nodes.database.stop)
            await asyncio.sleep(AWAY_S)
            assert refused[503] > refused_before, "the load did not notice that the database was away"
            await asyncio.to_thread(nodes.database.start)
            back_at, accepted = time.monotonic(), len(runs.accepted)
            await until(partial(has_grown, runs.accepted, accepted + 8), 30)
            print(f"\neight orders accepted {time.monotonic() - back_at:.1f} s after the database's return")
        stop.set()
    print(f"{len(runs.accepted)} accepted, {refused[503]} refused with 503")
    await runs.until_ended(60, statuses={"completed"})
    assert await runs.problems(reference) == []
    assert len(set(runs.accepted)) == len(runs.accepted)
    dead = alive - {process.pid for process in nodes.cluster.processes()}
    assert not dead, f"processes exited: {dead}"


async def test_runs_of_a_node_that_is_gone_go_on_at_the_other(
    nodes: Nodes, session: aiohttp.ClientSession
) -> None:
    runs = BackgroundRuns(nodes.cluster, session, models=MODELS)
    reference = await runs.reference()
    async with asyncio.timeout(60):
        while not (there := runners_on(nodes)):
            # Enough in the queue that a second runner is wanted.
            if await runs.open() < 4 * SLOTS:
                await runs.order(SLOTS)
            await asyncio.sleep(0.2)
    held = 0
    async with asyncio.timeout(30):
        while (held := await held_by(nodes.cluster, there)) < SLOTS // 2:
            await runs.order(SLOTS // 2)
    removed = nodes.second.remove()
    removed_at = time.monotonic()
    print(f"\n{removed} processes of the node removed, which held {held} of {len(runs.accepted)} runs")
    await runs.until_ended(60, statuses={"completed"})
    print(f"all runs completed {time.monotonic() - removed_at:.1f} s after that")
    assert await runs.cut_off() > 0
    assert await runs.problems(reference) == []


def has_grown(items: Sized, to: int) -> bool:
    """Whether there are as many by now."""
    return len(items) >= to


def runners_on(nodes: Nodes) -> set[int]:
    """Process ids of the runners on the second node."""
    return {process.pid for process in processes(nodes.cluster, RUNNER) if nodes.second.has(process)}
