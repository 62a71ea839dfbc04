from __future__ import annotations

import asyncio

import pytest

from actors.running.run_queue import MAX_CLAIMS, RunQueue
from actors.stores.records import ClaimedRun, Lease, QueueState
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from registries.contracts.config import LeaseConfig
from registries.contracts.errors import StoreError
from registries.contracts.runs import RunOrder, RunRequest
from tests.polling import until


def claimed(number: int) -> ClaimedRun:
    request = RunRequest(prompt="x", flow_type="challenge")
    order = RunOrder(run_id=f"r{number}", request_id="q", request=request, deadline_s=1)
    return ClaimedRun(order, "v", {}, Lease(f"r{number}", 1), 1)


class Waiting:
    """The database's queue."""

    def __init__(self, count: int) -> None:
        self.runs = [claimed(n) for n in range(count)]
        self.away = False
        self.asked: list[int] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def claim_next(self, owner: str, ttl_s: float, max_deaths: int, limit: int) -> list[ClaimedRun]:
        if self.away:
            raise StoreError("the disk is away")
        self.asked.append(limit)
        taken, self.runs = self.runs[:limit], self.runs[limit:]
        await self.answers.wait()
        return taken

    async def queue(self) -> QueueState:
        return QueueState(queued=len(self.runs))


class Runner:
    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.begun: list[str] = []

    def free(self) -> int:
        return self.slots - len(self.begun)

    def begin(self, run: ClaimedRun, asked_at: float) -> None:
        self.begun.append(run.order.run_id)


def queue_over(store: Waiting, runner: Runner, scan_s: float = 60.0) -> RunQueue:
    metrics = Metrics(NullSink(), "test")
    return RunQueue(
        store,  # type: ignore[arg-type]
        "owner",
        LeaseConfig(scan_s=scan_s),
        runner.free,
        runner.begin,
        metrics,
    )


async def test_it_takes_what_fits_in_order_and_knows_that_more_may_wait() -> None:
    store, runner = Waiting(100), Runner(slots=MAX_CLAIMS + 5)
    queue = queue_over(store, runner)
    assert await queue.fetch() == MAX_CLAIMS + 5
    assert runner.begun == [f"r{n}" for n in range(MAX_CLAIMS + 5)]
    assert store.asked == [MAX_CLAIMS, 5] and queue.backlog


async def test_an_empty_queue_is_no_backlog() -> None:
    store, runner = Waiting(3), Runner(slots=10)
    queue = queue_over(store, runner)
    queue.backlog = True
    assert await queue.fetch() == 3
    assert not queue.backlog


async def test_a_full_runner_asks_for_nothing() -> None:
    store, runner = Waiting(3), Runner(slots=0)
    queue = queue_over(store, runner)
    assert await queue.fetch() == 0
    assert store.asked == [] and queue.backlog


async def test_wake_looks_at_once_and_an_outage_is_outlived() -> None:
    store, runner = Waiting(1), Runner(slots=10)
    store.away = True
    queue = queue_over(store, runner, scan_s=0.02)
    working = asyncio.create_task(queue.run())
    await asyncio.sleep(0.05)
    assert not working.done()
    store.away = False
    queue.wake()
    await until(lambda: runner.begun == ["r0"], 10)
    await until(lambda: queue.state == QueueState(queued=0), 10)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_wake_does_not_wait_for_the_next_scan() -> None:
    store, runner = Waiting(0), Runner(slots=10)
    queue = queue_over(store, runner, scan_s=60.0)
    working = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    store.runs.append(claimed(7))
    queue.wake()
    await until(lambda: runner.begun == ["r7"], 5)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_fault_of_ours_is_not_the_end_of_looking() -> None:
    class Faulty(Waiting):
        async def claim_next(self, owner: str, ttl_s: float, max_deaths: int, limit: int) -> list[ClaimedRun]:
            if not self.asked:
                self.asked.append(limit)
                raise KeyError("a fault")
            return await super().claim_next(owner, ttl_s, max_deaths, limit)

    store, runner = Faulty(1), Runner(slots=10)
    working = asyncio.create_task(queue_over(store, runner, scan_s=0.02).run())
    await until(lambda: runner.begun == ["r0"], 10)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_settling_waits_for_the_claim_that_is_under_way() -> None:
    store, runner = Waiting(1), Runner(slots=10)
    store.answers.clear()
    queue = queue_over(store, runner)
    fetching = asyncio.create_task(queue.fetch())
    await until(lambda: store.asked == [10], 5)
    runner.slots = 0
    with pytest.raises(TimeoutError):
        await queue.settle(0.05)
    settling = asyncio.create_task(queue.settle(5))
    await asyncio.sleep(0)
    store.answers.set()
    await settling
    assert runner.begun == ["r0"], "claimed, and held by nobody"
    await fetching
