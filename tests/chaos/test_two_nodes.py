"""A runtime of two nodes on PostgreSQL: the database goes away, again and again, then a node for good."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import aiohttp
import httpx
import psutil
import pytest

from serve_app.lifecycle.find_runtime import DAEMONS
from tests.chaos.background_runs import BackgroundRuns, held_by
from tests.chaos.database_outages import shuffled_outages
from tests.chaos.engine.scale import scaled
from tests.chaos.keyed_orders import KeyedOrders
from tests.chaos.second_node import SecondNode, fill_the_head, serve_on_the_head_only, worker_exits
from tests.chaos.test_kills import processes
from tests.machine_pace import paced
from tests.own_server import OwnServer
from tests.polling import until
from tests.postgres_server import own_postgres
from tests.runtime_cluster import RunningCluster, running_cluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
RUNNER = "ServeReplica:parley:FlowRunner"
INGRESS = "ServeReplica:parley:Ingress"
SLOTS = 8
SCALED_DOWN = "INTENDED_SYSTEM_EXIT"
"""What Ray says of a replica that Serve has ended; one that crashes or exits by itself ends otherwise."""
AWAY_S = 4.0
CLIENTS, LONGEST_S = 16, 5.0
OUTAGES, WAVE = scaled(5, 25), scaled(6, 10)
RUNS = 2 * OUTAGES * WAVE
"""One wave before each outage, one while it lasts: 60 runs, or 500."""
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
    deadline = time.monotonic() + paced(60)
    said = ""
    with httpx.Client(base_url=cluster.base_url, headers=cluster.headers, trust_env=False) as client:
        while True:
            try:
                answer = client.get("/api/ready")
                said = answer.text
                if answer.status_code == 200:
                    return
            except httpx.HTTPError as error:
                said = repr(error)
            assert time.monotonic() < deadline, f"the runtime is not ready: {said}"
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
    before = lasting(nodes)
    refused: Counter[int] = Counter()
    cut = 0
    stop = asyncio.Event()

    async def client() -> None:
        """One run after another; an order that was refused or cut is made again under its own key."""
        nonlocal cut
        key = uuid.uuid4().hex
        while not stop.is_set():
            try:
                async with session.post(
                    "/api/runs", json=runs.body, headers={"idempotency-key": key}
                ) as answer:
                    text = await answer.text()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                cut += 1
            else:
                if answer.status == 202:
                    runs.accepted.append(str(json.loads(text)["run_id"]))
                    key = uuid.uuid4().hex
                else:
                    refused[answer.status] += 1
                    assert answer.status == 503, text
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
    print(f"{len(runs.accepted)} accepted, {refused[503]} refused with 503, {cut} cut")
    await runs.until_ended(60, statuses={"completed"})
    assert await runs.problems(reference) == []
    assert len(set(runs.accepted)) == len(runs.accepted)
    await assert_nobody_exited(nodes, before)


@pytest.mark.timeout(scaled(240, 900))
async def test_the_database_goes_away_at_random_under_load(
    nodes: Nodes, session: aiohttp.ClientSession, dice: random.Random
) -> None:
    """Everything is counted in orders, so that a slow machine meets as many outages as a fast one."""
    # Of this test alone: the runtime has others' runs.
    conversation = {"conversation_id": "outages", "deadline_s": 900}
    runs = BackgroundRuns(nodes.cluster, session, models=MODELS, **conversation)
    reference = await runs.reference()
    orders = KeyedOrders(session, runs.body)
    before = lasting(nodes)
    async with orders.clients(CLIENTS):
        for outage in shuffled_outages(OUTAGES, dice):
            # Some of the wave are in, and others on their way, when it begins.
            moment = len(orders.accepted) + dice.randint(0, WAVE)
            orders.deal(WAVE)
            await until(partial(has_grown, orders.accepted, moment), 60)
            away_s = dice.uniform(0.0, LONGEST_S)
            print(f"{outage.__name__} for {away_s:.2f} s after {len(orders.accepted)} runs")
            async with outage(nodes.database):
                orders.deal(WAVE)
                await asyncio.sleep(away_s)
    print(f"{orders.refused} refused, {orders.cut} cut, {orders.replayed} were in at an earlier try")
    runs.accepted += orders.accepted.values()
    await runs.until_ended(scaled(90, 400), statuses={"completed"})
    assert orders.wrong == []
    assert orders.refused > 0, "no outage met a client"
    assert await runs.problems(reference) == []
    assert len(set(runs.accepted)) == len(runs.accepted) == RUNS
    made = await runs_in(session, "outages")
    assert made - set(runs.accepted) == {reference["run_id"]}, "an order made a second run"
    await assert_nobody_exited(nodes, before)


async def test_runs_of_a_node_that_is_gone_go_on_at_the_other(
    nodes: Nodes, session: aiohttp.ClientSession
) -> None:
    runs = BackgroundRuns(nodes.cluster, session, models=MODELS)
    reference = await runs.reference()
    async with asyncio.timeout(paced(60)):
        while not (there := runners_on(nodes)):
            # Enough in the queue that a second runner is wanted.
            if await runs.open() < 4 * SLOTS:
                await runs.order(SLOTS)
            await asyncio.sleep(0.2)
    held = 0
    async with asyncio.timeout(paced(30)):
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


def lasting(nodes: Nodes) -> dict[int, str]:
    """Process ids and titles of the front doors, the runners and Ray's daemons."""
    found = {process.pid: title for title in (INGRESS, RUNNER) for process in processes(nodes.cluster, title)}
    for process in nodes.cluster.processes():
        with suppress(psutil.NoSuchProcess):
            if (name := process.name()) in DAEMONS:
                found[process.pid] = name
    return found


async def assert_nobody_exited(nodes: Nodes, before: Mapping[int, str]) -> None:
    """All of these processes still live, but for those that Serve itself has ended: it scales down after a
    quiet minute."""
    gone = before.items() - lasting(nodes).items()
    if not gone:
        return
    exits = await asyncio.to_thread(worker_exits, nodes.cluster)
    told = {f"{title} ({pid}): {exits.get(pid)}" for pid, title in gone if exits.get(pid) != SCALED_DOWN}
    assert not told, f"processes exited: {told}"


async def runs_in(session: aiohttp.ClientSession, conversation: str) -> set[str]:
    """Ids of every run of a conversation."""
    found: set[str] = set()
    asked = {"limit": "200", "conversation_id": conversation}
    while True:
        async with session.get("/api/runs", params=asked) as answer:
            assert answer.status == 200, await answer.text()
            page = await answer.json()
        found |= {row["run_id"] for row in page["runs"]}
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]
