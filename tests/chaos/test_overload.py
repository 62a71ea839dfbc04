"""Ten times more than a model can take: it works at its capacity, and the rest is refused at once.

A suite of its own, whose processes are not measured for coverage: the tracer's time would be part of the
figures.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import psutil
import pytest

from tests.chaos.background_runs import BackgroundRuns
from tests.chaos.engine.scale import scaled
from tests.chaos.loop_lag import judge_undisturbed
from tests.chaos.test_kills import processes
from tests.polling import until
from tests.runtime_cluster import RunningCluster
from tests.scripted_models import NARROW_CALL_S, NARROW_SLOTS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(180)]
CAPACITY_PER_S = NARROW_SLOTS / NARROW_CALL_S
OVERLOAD = 10
WARM_S, MEASURED_S = 3.0, scaled(8.0, 40.0)
ASK = {"prompt": "What is 48 + 37?", "model_key": "narrow", "deadline_s": 10}


@dataclass(slots=True)
class Tally:
    """What clients saw: when each right answer came, how long each refusal took."""

    right_at: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


async def ask(session: aiohttp.ClientSession, tally: Tally) -> None:
    begun = time.monotonic()
    try:
        async with session.post("/api/inference", json=ASK) as answer:
            body = await answer.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.others[type(error).__name__] += 1
        return
    now = time.monotonic()
    if answer.status == 200 and body["text"] == "The answer is 85.":
        tally.right_at.append(now)
    elif answer.status == 429 and int(answer.headers["retry-after"]) >= 1:
        tally.refused_s.append(now - begun)
    else:
        tally.others[f"{answer.status} {str(body)[:100]}"] += 1


async def offer(session: aiohttp.ClientSession, tally: Tally, per_s: float, seconds: float) -> None:
    """An open loop: requests come at their times, whatever becomes of those before."""
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for n in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, begun + n / per_s - time.monotonic()))
            group.create_task(ask(session, tally))


async def is_ready(session: aiohttp.ClientSession) -> bool:
    """Whether every model is loaded: one that still loads is waited for, not refused."""
    async with session.get("/api/ready") as answer:
        return answer.status == 200


def request_path(cluster: RunningCluster) -> list[psutil.Process]:
    """The processes that requests go through."""
    titles = ("ServeReplica:parley:Ingress", "ServeReplica:model-narrow", "haproxy")
    return list({process for title in titles for process in processes(cluster, title)})


def resident_bytes(measured: Sequence[psutil.Process]) -> int:
    """Of those that still live: a reload of HAProxy ends the one of before."""
    total = 0
    for process in measured:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


async def overload_faults(session: aiohttp.ClientSession, measured: Sequence[psutil.Process]) -> list[str]:
    """Offer too much for ``MEASURED_S``; which figures are not as they should be."""
    tally = Tally()

    async def bytes_halfway() -> int:
        await asyncio.sleep(MEASURED_S / 2)
        return resident_bytes(measured)

    halfway = asyncio.create_task(bytes_halfway())
    begun = time.monotonic()
    await offer(session, tally, OVERLOAD * CAPACITY_PER_S, MEASURED_S)
    # In the second half alone: in the first one buffers still grow to what the load needs.
    growth = resident_bytes(measured) / await halfway - 1
    answered = sum(at <= begun + MEASURED_S for at in tally.right_at)
    goodput = answered / MEASURED_S / CAPACITY_PER_S
    refused = sorted(tally.refused_s)
    p50, p95 = refused[len(refused) // 2], refused[int(len(refused) * 0.95)]
    print(
        f"\n{goodput:.0%} of capacity; {len(refused)} refused, p50 {p50 * 1000:.0f} ms, p95 "
        f"{p95 * 1000:.0f} ms; {growth:+.1%} memory; others {dict(tally.others)}"
    )
    assert not tally.others
    faults = []
    if goodput < 0.9:
        faults.append(f"{goodput:.0%} of capacity, at least 90 % is wanted")
    if p95 > 0.1:
        faults.append(f"refusals wait: p95 is {p95:.3f} s, at most 0.1 s is wanted")
    if growth > 0.05:
        faults.append(f"memory grew by {growth:.1%} in half of the time, at most 5 % is wanted")
    return faults


async def test_an_overloaded_model_works_at_its_capacity(cluster: RunningCluster) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        cluster.base_url, headers=cluster.headers, connector=connector, timeout=timeout
    ) as session:
        warm, calm = Tally(), Tally()
        await until(lambda: is_ready(session), 60, every_s=0.2)
        await offer(session, warm, OVERLOAD * CAPACITY_PER_S, WARM_S)
        assert not warm.others
        measured = request_path(cluster)
        await judge_undisturbed(lambda: overload_faults(session, measured))
        begun = time.monotonic()

        async def normal() -> bool:
            calm.right_at.clear()
            calm.refused_s.clear()
            await offer(session, calm, CAPACITY_PER_S / 2, 1.0)
            return not calm.refused_s and not calm.others and len(calm.right_at) >= CAPACITY_PER_S / 2 - 1

        await until(normal, 30)
        print(f"normal again after {time.monotonic() - begun:.1f} s")


async def test_accepted_runs_wait_for_a_full_model(cluster: RunningCluster) -> None:
    async with aiohttp.ClientSession(cluster.base_url, headers=cluster.headers) as session:
        await until(lambda: is_ready(session), 60, every_s=0.2)
        runs = BackgroundRuns(
            cluster, session, models=dict.fromkeys(("creator", "challenger", "refiner"), "narrow")
        )
        reference = await runs.reference()

        async def goodput_faults() -> list[str]:
            run_ids = await runs.order(OVERLOAD * NARROW_SLOTS)
            await runs.until_ended(60)
            ends = sorted([end for run_id in run_ids for end in await node_ends(session, run_id)])
            # Without the begin and the end, where there is not enough work to fill every slot.
            middle = ends[len(ends) // 5 : -len(ends) // 5]
            goodput = (len(middle) - 1) / (middle[-1] - middle[0]) / CAPACITY_PER_S
            print(f"\n{len(ends)} calls of {len(run_ids)} runs: {goodput:.0%} of capacity")
            return [f"{goodput:.0%} of capacity, at least 90 % is wanted"] if goodput < 0.9 else []

        await judge_undisturbed(goodput_faults)
        assert await runs.problems(reference) == []


async def node_ends(session: aiohttp.ClientSession, run_id: str) -> list[float]:
    """When the run's nodes ended."""
    async with session.get(f"/api/runs/{run_id}") as answer:
        log = (await answer.json())["execution_log"]
    return [event["time"] for event in log if event["type"] == "node.completed"]
