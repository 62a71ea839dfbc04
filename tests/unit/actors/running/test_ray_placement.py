from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from ray.exceptions import WorkerCrashedError

from actors.running.nodes_here import nodes_here
from actors.running.ports import GpuResources
from actors.running.ray_placement import MIN_TASKS, TASKS_PER_WORKER, ExpertPool, RayPlacement
from actors.running.task_owner import TaskOwner
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.node_task import NodeTask
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import LeaseLost
from registries.contracts.runs import NodeResult
from registries.specs import NodeSpec
from tests.unit.flows.fakes import PACKAGE, FakeGenerator, RecordedEvents


def pool_of(workers: int) -> ExpertPool:
    config = RuntimeConfig(home="/h", expert_workers=workers)
    return ExpertPool(config, TaskOwner(), Metrics(NullSink(), "test"))


def held() -> None:
    """The run is still this runner's."""


def room(pool: ExpertPool) -> int:
    count = 0
    while pool.take():
        count += 1
    return count


def test_so_many_experts_are_out_at_once() -> None:
    assert room(pool_of(5)) == 5 * TASKS_PER_WORKER
    pool = pool_of(0)
    assert room(pool) == MIN_TASKS and not pool.take()
    pool.give_back()
    assert pool.take() and not pool.take()


async def test_what_finds_no_worker_free_runs_here_with_the_run_s_events() -> None:
    pool = pool_of(1)
    room(pool)
    events = RecordedEvents()
    here = nodes_here(FakeGenerator(), events, GpuResources(6.0), PACKAGE)
    spec = NodeSpec(id="critic", kind="generate", prompt="create", placement="task", model="nano-m")
    task = NodeTask(
        run_id="r",
        request_id="q",
        flow="test",
        node=spec,
        question="What is 48 + 37?",
        variables={"input": "What is 48 + 37?", "prompt": "What is 48 + 37?"},
        model="nano-m",
        deadline_s=30,
    )
    result = await RayPlacement(pool, events, here, held).run_node(task.model_dump(mode="json"))
    assert result.status == "completed" and result.text == "48 + 37 = 85"
    assert events.tokens("critic") == result.text
    assert not pool.take(), "nothing was taken that must be given back"


async def test_a_slot_is_given_back_whatever_comes_of_the_expert() -> None:
    pool = pool_of(1)

    async def nowhere(payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("a worker is free")

    placement = RayPlacement(pool, RecordedEvents(), nowhere, held)
    before = room(pool)
    for _ in range(before):
        pool.give_back()

    def no_ray(payload: Mapping[str, Any]) -> Any:
        raise RuntimeError("no cluster")

    pool.start = no_ray  # type: ignore[method-assign]
    for _ in range(2 * before):
        try:
            await placement.run_node({"node": {"id": "x"}})
        except RuntimeError:
            continue
    assert room(pool) == before


async def test_an_expert_whose_worker_died_is_not_tried_again_for_a_run_that_was_lost() -> None:
    pool = pool_of(1)
    started: list[str] = []

    async def dies() -> AsyncIterator[Any]:
        started.append("expert")
        raise WorkerCrashedError
        yield

    async def nowhere(payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("a worker is free")

    def held_once() -> None:
        if started:
            raise LeaseLost("another runner goes on")

    pool.start = lambda payload: dies()  # type: ignore[method-assign]
    pool.cancel = lambda items: None  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await RayPlacement(pool, RecordedEvents(), nowhere, held_once).run_node({"node": {"id": "x"}})
    assert started == ["expert"]
