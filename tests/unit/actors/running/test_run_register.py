from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.running.lease_keeper import LeaseKeeper
from actors.running.ports import GpuResources
from actors.running.run_execution import RunExecution, RunParts
from actors.running.run_register import RunRegister
from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, NewRun
from actors.stores.store import Store
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.builder import FlowGraphs
from flows.ports import EventSink, Generator
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import LeaseLost
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import NodeResult, RunOrder, RunRequest
from registries.loader import load_catalog
from tests.machine_pace import paced
from tests.passing_time import skip_time
from tests.polling import until
from tests.unit.flows.fakes import FakeGenerator

CATALOG = load_catalog()
FLOW = CATALOG.flows.get("challenge")
OWNER, TTL_S = "this runner", 60.0


class NoPlacement:
    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("this flow places nothing")


class Calls:
    """A model that answers when ``gate`` is open, and is slow to notice that a call was cut off."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.under_way = self.most = self.begun = 0

    async def pause(self, request: GenerationRequest) -> None:
        self.begun += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise
        finally:
            self.under_way -= 1


class Runner:
    """A register over a real store, and the claims that a runner makes."""

    def __init__(self, store: Store, outputs: Path, slots: int = 4) -> None:
        self.store = store
        self.calls = Calls()
        self.claimable = asyncio.Event()
        self.claimable.set()
        self.claims = 0

        def no_placement(_: EventSink, __: Generator, ___: Callable[[], None]) -> NoPlacement:
            return NoPlacement()

        parts = RunParts(
            generator=FakeGenerator(pause=self.calls.pause),
            store=store,
            graphs=FlowGraphs(CATALOG),
            metrics=Metrics(NullSink(), "test"),
            placement=no_placement,
            resources=GpuResources(6.0),
            outputs_root=outputs,
            linger_s=lambda: 0.001,
        )
        keeper = LeaseKeeper(store.open_renewer(), TTL_S, asyncio.get_running_loop())
        self.keeper = keeper
        self.register = RunRegister(parts, keeper, slots, CATALOG.flows.get, lambda: None)

    async def claim(self, asked: NewRun | str, ttl_s: float = TTL_S) -> ClaimedRun | None:
        """As a database does that is slow to answer: what it was asked for it does, whoever waits."""
        self.claims += 1
        claimed = await self.store.claim(asked, OWNER, ttl_s, 3)
        await self.claimable.wait()
        return claimed

    async def status(self, run_id: str) -> str:
        run = await self.store.get(run_id, "default")
        return "unknown" if run is None else str(run["status"])


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    store = await open_store(RuntimeConfig(home=str(tmp_path / "home")))
    made = Runner(store, tmp_path)
    yield made
    made.calls.gate.set()
    await made.register.drain(5)
    made.keeper.close()
    await store.close()


def new_run(run_id: str, **request: Any) -> NewRun:
    asked = RunRequest(**{"prompt": "What is 48 + 37?", "flow_type": FLOW.name, **request})
    order = RunOrder(run_id=run_id, request_id=f"req-{run_id}", request=asked, deadline_s=30)
    return NewRun(order, FLOW.version, FLOW.document)


async def begun(runner: Runner, run_id: str, ttl_s: float = TTL_S) -> RunExecution:
    execution = await runner.register.take(runner.claim(new_run(run_id), ttl_s))
    assert execution is not None
    return execution


async def leaves_during_the_claim(runner: Runner, run_id: str, on_disconnect: str) -> None:
    """Somebody who asks for a run and goes away while the database has not answered yet."""
    runner.claimable.clear()
    new = new_run(run_id, on_disconnect=on_disconnect)
    asking = asyncio.create_task(runner.register.take(runner.claim(new)))
    await until(lambda: runner.claims == 1, 5)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    runner.claimable.set()


async def test_a_run_claimed_again_ends_its_old_execution_before_it_begins(runner: Runner) -> None:
    old = await begun(runner, "r1", ttl_s=0.01)
    reader = old.log.reader()
    claimed: list[ClaimedRun] = []

    async def shows_its_node() -> bool:
        """Then it writes nothing more for now, and would not find out by itself."""
        return any(event.type == "node.started" for event in await runner.store.events("r1", "default"))

    async def claimed_again() -> bool:
        claimed.extend(await runner.store.claim_next(OWNER, TTL_S, 3, 1))
        return bool(claimed)

    await until(shows_its_node, 5)
    await until(claimed_again, 5)
    new = runner.register.begin(claimed[0], time.monotonic())
    assert new is not None and new.task is not None and old.task is not None
    with pytest.raises(LeaseLost):
        # Long before its deadline, at which it would find out.
        async with asyncio.timeout(paced(5)):
            async for _ in reader.batches():
                pass
    await until(lambda: runner.calls.begun == 2, 5)
    assert runner.calls.most == 1, "a node was called twice at once"
    assert old.task.done() and runner.register.get("r1") is new and len(runner.register) == 1
    runner.calls.gate.set()
    await asyncio.wait_for(new.task, 10)
    assert await runner.status("r1") == "completed"


@pytest.mark.parametrize(("on_disconnect", "status"), [("cancel", "cancelled"), ("continue", "completed")])
async def test_a_run_whose_asker_left_during_the_claim(
    runner: Runner, on_disconnect: str, status: str
) -> None:
    runner.calls.gate.set()
    await leaves_during_the_claim(runner, "r1", on_disconnect)

    async def ended() -> bool:
        return await runner.status("r1") == status

    await until(ended, 10)
    await until(lambda: runner.register.free == 4, 5)


async def test_a_claim_under_way_has_a_slot(runner: Runner) -> None:
    runner.claimable.clear()
    asking = asyncio.create_task(runner.register.take(runner.claim(new_run("r1"))))
    await until(lambda: runner.claims == 1, 5)
    assert runner.register.free == 3
    runner.claimable.set()
    assert await asking is not None and runner.register.free == 3


async def test_a_claim_that_is_under_way_when_the_drain_begins_is_handed_over(runner: Runner) -> None:
    runner.claimable.clear()
    asking = asyncio.create_task(runner.register.take(runner.claim(new_run("r1"))))
    await until(lambda: runner.claims == 1, 5)
    draining = asyncio.create_task(runner.register.drain(60))
    await until(lambda: runner.register.free == 0, 5)
    runner.claimable.set()
    assert await asking is not None
    await until(lambda: runner.calls.begun == 1, 5)
    skip_time(60)
    await asyncio.wait_for(draining, 10)
    run = await runner.store.get("r1", "default")
    assert run is not None and (run["status"], run["owner"], run["deaths"]) == ("queued", None, 0)


async def test_a_run_that_is_handed_over_as_soon_as_it_is_begun_is_released(runner: Runner) -> None:
    execution = await begun(runner, "r1")
    again = await runner.claim(new_run("r2"))
    assert again is not None
    second = runner.register.begin(again, time.monotonic())
    assert second is not None and second.task is not None
    second.hand_over()
    execution.hand_over()
    await asyncio.wait_for(runner.register.drain(5), 10)
    assert [await runner.status(run_id) for run_id in ("r1", "r2")] == ["queued", "queued"]


async def test_a_draining_register_has_no_slot(runner: Runner) -> None:
    assert runner.register.free == 4
    await runner.register.drain(5)
    assert runner.register.free == 0
