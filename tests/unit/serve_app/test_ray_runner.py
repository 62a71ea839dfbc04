"""Ray's exceptions at the runner's handle, played; the real ones are met in tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError, RayServeException

from registries.contracts.errors import CapacityError, Conflict, InternalError
from registries.contracts.runs import RunOrder, RunRequest
from serve_app.ray_runner import RayRunner
from serve_app.replica_reports import ReplicaReports
from serve_app.run_ports import RunnerLost
from tests.unit.serve_app.front_door import until

ORDER = RunOrder(
    run_id="r", request_id="q", request=RunRequest(prompt="hi", flow_type="linear"), deadline_s=5.0
)


class PlayedCall:
    def __init__(self, error: BaseException | None, gate: asyncio.Event | None) -> None:
        self.error = error
        self.gate = gate
        self.cancelled = 0

    async def __aiter__(self) -> AsyncIterator[list[str]]:
        yield ["first"]
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        self.cancelled += 1
        if self.error is not None:
            raise self.error


class PlayedHandle:
    def __init__(self, error: BaseException | None = None, gate: asyncio.Event | None = None) -> None:
        self.call = PlayedCall(error, gate)

    def options(self, **_: Any) -> PlayedHandle:
        return self

    def remote(self, order: RunOrder) -> PlayedCall:
        return self.call


async def batches(handle: PlayedHandle) -> list[Any]:
    return [batch async for batch in RayRunner(handle).run(ORDER)]


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (BackPressureError(1, 1, 429, 2.0), CapacityError),
        (ray.exceptions.ActorDiedError(), RunnerLost),
        (ray.exceptions.WorkerCrashedError(), RunnerLost),
        (asyncio.CancelledError(), RunnerLost),
        (Conflict("taken"), Conflict),
        (KeyError("ours"), InternalError),
    ],
)
async def test_rays_exceptions_become_ours(raised: BaseException, wanted: type[Exception]) -> None:
    handle = PlayedHandle(raised)
    with pytest.raises(wanted):
        await batches(handle)
    assert handle.call.cancelled == 0


async def test_a_whole_run_is_passed_on() -> None:
    assert await batches(PlayedHandle()) == [["first"]]


async def test_closing_and_cancelling_cancel_the_call() -> None:
    handle = PlayedHandle(gate=asyncio.Event())
    run = RayRunner(handle).run(ORDER)
    assert await anext(run) == ["first"]
    await run.aclose()  # type: ignore[attr-defined]
    assert handle.call.cancelled == 1
    other = PlayedHandle(gate=asyncio.Event())
    seen: list[Any] = []

    async def read() -> None:
        async for batch in RayRunner(other).run(ORDER):
            seen.append(batch)

    task = asyncio.create_task(read())
    await until(lambda: seen == [["first"]])
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled() and other.call.cancelled == 1


class PlayedUnary:
    """A handle for ``wake`` and ``cancel``: the answer, or an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.told: list[Any] = []

    def options(self, **values: Any) -> PlayedUnary:
        return self

    async def remote(self) -> None:
        self.told.append("wake")
        if self.error is not None:
            raise self.error

    def broadcast(self, method: str, run_id: str) -> PlayedUnary:
        self.told.append((method, run_id))
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [True, False]


async def test_runners_are_woken_and_all_of_them_told_to_cancel() -> None:
    handle = PlayedUnary()
    runner = RayRunner(handle)
    await runner.wake()
    await runner.cancel("run-1")
    assert handle.told == ["wake", ("cancel", "run-1")]


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (BackPressureError(1, 1, 429, 2.0), CapacityError),
        (ray.exceptions.ActorDiedError(), RunnerLost),
        (KeyError("ours"), InternalError),
    ],
)
async def test_what_they_raise_becomes_ours(raised: BaseException, wanted: type[Exception]) -> None:
    for tell in ("wake", "cancel"):
        runner = RayRunner(PlayedUnary(raised))
        with pytest.raises(wanted):
            await (runner.wake() if tell == "wake" else runner.cancel("run-1"))


async def test_a_runner_that_does_not_answer_is_lost_and_a_call_that_serve_cancelled_too() -> None:
    with pytest.raises(RunnerLost):
        await RayRunner(PlayedUnary(TimeoutError())).cancel("run-1")
    with pytest.raises(RunnerLost):
        await RayRunner(PlayedUnary(asyncio.CancelledError())).wake()


class PlayedBroadcast:
    def __init__(self, answers: list[Any], error: Exception | None) -> None:
        self.answers = answers
        self.error = error

    def broadcast(self, method: str) -> PlayedBroadcast:
        assert method == "status"
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        return self.answers


async def test_reports_are_of_the_replicas_that_answer_and_the_silent_ones_are_counted() -> None:
    def two() -> dict[str, Any]:
        return {"replicas": {"RUNNING": 2}}

    applications: dict[str, Any] = {
        "parley": {"deployments": {"Ingress": two(), "FlowRunner": two()}},
        "model-a": {"deployments": {"ModelReplica": two()}},
        "model-b": {"deployments": {"ModelReplica": {"replicas": {"STARTING": 1}}}},
        "model-c": {"deployments": {"ModelReplica": two()}},
    }
    errors = {"model-a": RayServeException("gone"), "model-c": TimeoutError()}

    def handle(deployment: str, app: str) -> PlayedBroadcast:
        return PlayedBroadcast([{"runs": 1}, KeyError("dead replica")], errors.get(app))

    await ReplicaReports(handle).add_to(applications)
    shown = {
        app: {name: (facts.get("reports"), facts.get("silent")) for name, facts in of["deployments"].items()}
        for app, of in applications.items()
    }
    assert shown == {
        "parley": {"Ingress": (None, None), "FlowRunner": ([{"runs": 1}], 1)},
        "model-a": {"ModelReplica": ([], 2)},
        "model-b": {"ModelReplica": (None, None)},
        "model-c": {"ModelReplica": ([], 2)},
    }
