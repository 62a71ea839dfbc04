"""Serve handles and engines of this process behind the one contract."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError

from actors.gateway.engine_completer import EngineCompleter
from actors.gateway.faults import LOADING, NextStep, next_step, outcome_kind
from actors.gateway.ray_errors import from_ray
from actors.gateway.serve_completer import ServeCompleter
from actors.gateway.serve_readiness import ServeReadiness
from registries.contracts.engine import REPLICA_LOST, EngineCall, EngineResult
from registries.contracts.errors import CapacityError, Fault, ParleyError, ProviderError, ValidationError
from registries.contracts.generation import GenerationChunk, Message
from tests.unit.actors.gateway.played import Clock, PlayedCompleter, local_model

SPEC = local_model("m")
CALL = EngineCall("r1", "m", (Message(role="user", content="hi"),), 10)
ANSWER = EngineResult("ok", "stop", 1, 1)


class PlayedResponse:
    """A DeploymentResponse: awaitable, iterable, cancellable."""

    def __init__(self, step: Any) -> None:
        self._step = step
        self.cancelled = False

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if asyncio.isfuture(self._step):
            return await self._step
        if isinstance(self._step, BaseException):
            raise self._step
        return self._step

    async def __aiter__(self) -> AsyncIterator[Any]:
        for step in self._step:
            if asyncio.isfuture(step):
                await step
            if isinstance(step, BaseException):
                raise step
            yield step

    def cancel(self) -> None:
        self.cancelled = True


class PlayedHandle:
    """A DeploymentHandle whose every call gives the next step."""

    def __init__(self, *steps: Any) -> None:
        self.responses = [PlayedResponse(step) for step in steps]
        self.made: list[PlayedResponse] = []
        self.complete = self.stream = SimpleNamespace(remote=self._remote)

    def options(self, stream: bool) -> PlayedHandle:
        return self

    def _remote(self, call: EngineCall) -> PlayedResponse:
        self.made.append(self.responses.pop(0))
        return self.made[-1]


def app(status: str, **replicas: int) -> Any:
    failed = status == "DEPLOY_FAILED"
    cause = "  File x.py\nregistries.contracts.errors.ValidationError: why"
    deployment = SimpleNamespace(replica_states=replicas, message=cause if failed else "")
    return SimpleNamespace(
        status=status,
        message="Failed to update the deployments ['ModelReplica']." if failed else "",
        deployments={"ModelReplica": deployment},
    )


def completer(handle: PlayedHandle, apps: dict[str, Any] | None = None) -> ServeCompleter:
    states = {"app": app("RUNNING", RUNNING=1)} if apps is None else apps
    readiness = ServeReadiness(read=lambda: states, clock=Clock())
    return ServeCompleter(SPEC, "app", "ModelReplica", readiness, lambda deployment, name: handle)


async def test_a_whole_answer_and_a_stream_of_lists() -> None:
    items = [[GenerationChunk(text="o"), GenerationChunk(text="k")], [ANSWER]]
    model = completer(PlayedHandle(ANSWER, items))
    assert await model.complete(CALL) == ANSWER
    assert [i async for i in model.stream(CALL)] == [*items[0], ANSWER]


@pytest.mark.parametrize("states", [{}, {"app": app("DEPLOYING", STARTING=1)}, {"app": app("DEPLOYING")}])
async def test_a_model_that_loads_says_so(states: dict[str, Any]) -> None:
    with pytest.raises(CapacityError, match="'m' is still loading") as caught:
        await completer(PlayedHandle(), states).complete(CALL)
    assert caught.value.retry_after_s and caught.value.context[LOADING]


async def test_a_model_that_failed_to_load_says_why_without_its_trace() -> None:
    with pytest.raises(ProviderError, match=r"'m' failed to load: why$") as caught:
        await completer(PlayedHandle(), {"app": app("DEPLOY_FAILED")}).complete(CALL)
    assert caught.value.fault is Fault.REFUSED
    assert next_step(caught.value) is NextStep.NEXT, "asking again would not load it"


async def test_a_model_that_no_node_can_hold_is_not_waited_for() -> None:
    readiness = ServeReadiness(read=dict, clock=Clock())
    model = ServeCompleter(SPEC, "app", "D", readiness, lambda d, a: None, lambda: "it asks for 1 GPU(s)")
    with pytest.raises(CapacityError, match=r"'m' cannot be loaded here: it asks for 1 GPU") as caught:
        await model.complete(CALL)
    assert LOADING not in caught.value.context
    assert not caught.value.retryable and not pickle.loads(pickle.dumps(caught.value)).retryable


async def test_serve_that_cannot_be_asked_is_a_model_that_loads() -> None:
    def read() -> dict[str, Any]:
        raise RayServeException("no Serve here")

    model = ServeCompleter(SPEC, "app", "D", ServeReadiness(read=read, clock=Clock()), lambda d, a: None)
    with pytest.raises(CapacityError):
        await model.complete(CALL)


async def test_one_look_at_serve_serves_many_for_half_a_second() -> None:
    looks: list[int] = []

    def read() -> dict[str, Any]:
        looks.append(1)
        return {"app": app("RUNNING", RUNNING=1)}

    clock = Clock()
    readiness = ServeReadiness(read=read, clock=clock)
    states = await asyncio.gather(*(readiness.state(name) for name in ("app", "app", "other")))
    assert [s.state for s in states] == ["ready", "ready", "absent"] and len(looks) == 1
    clock.now += 1
    await readiness.state("app")
    assert len(looks) == 2


async def test_a_lost_replica_is_looked_for_before_the_next_try() -> None:
    states = {"app": app("RUNNING", RUNNING=1)}
    clock = Clock()
    readiness = ServeReadiness(read=lambda: states, clock=clock)
    handle = PlayedHandle(ray.exceptions.RayActorError(), ANSWER)
    model = ServeCompleter(SPEC, "app", "D", readiness, lambda d, a: handle)
    with pytest.raises(ProviderError) as caught:
        await model.complete(CALL)
    assert caught.value.fault is Fault.REFUSED and caught.value.retryable
    assert outcome_kind(caught.value) == "ignored", "Serve replaces the replica: no minute of rest for it"
    clock.now += 1
    states["app"] = app("UNHEALTHY", STARTING=1)
    with pytest.raises(CapacityError):
        await model.complete(CALL)
    clock.now += 1
    states["app"] = app("RUNNING", RUNNING=1)
    assert await model.complete(CALL) == ANSWER


async def test_cancelling_a_call_cancels_it_at_its_replica() -> None:
    handle = PlayedHandle(asyncio.get_running_loop().create_future())
    task = asyncio.create_task(completer(handle).complete(CALL))
    while not handle.made:  # noqa: ASYNC110 - the played handle has no event to wait for
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.made[0].cancelled


async def test_closing_a_stream_cancels_it_and_a_finished_one_is_left_alone() -> None:
    handle = PlayedHandle([[GenerationChunk(text="o")], [ANSWER]], [[ANSWER]])
    model = completer(handle)
    items = model.stream(CALL)
    await anext(aiter(items))
    await items.aclose()  # type: ignore[attr-defined]
    assert handle.made[0].cancelled
    assert [i async for i in model.stream(CALL)] == [ANSWER]
    assert not handle.made[1].cancelled


async def test_abort_from_outside_reaches_the_call_by_its_id() -> None:
    handle = PlayedHandle(asyncio.get_running_loop().create_future())
    model = completer(handle)
    task = asyncio.create_task(model.complete(CALL))
    while not handle.made:  # noqa: ASYNC110 - the played handle has no event to wait for
        await asyncio.sleep(0.001)
    await model.abort("unknown")
    await model.abort(CALL.request_id)
    assert handle.made[0].cancelled
    task.cancel()
    await asyncio.wait([task])


async def test_a_replica_that_cancels_by_itself_is_a_lost_replica() -> None:
    model = completer(PlayedHandle(asyncio.CancelledError(), [asyncio.CancelledError()]))
    with pytest.raises(ProviderError) as caught:
        await model.complete(CALL)
    assert caught.value.context[REPLICA_LOST]
    with pytest.raises(ProviderError):
        _ = [i async for i in model.stream(CALL)]


def task_error(cause: Exception) -> Exception:
    error = ray.exceptions.RayTaskError("f", "a trace", cause, proctitle="p", pid=1, ip="ip")
    return error.make_dual_exception_instance()


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        (BackPressureError(3, 2), CapacityError, None),
        (task_error(BackPressureError(3, 2, 429, 7.0)), CapacityError, None),
        (task_error(CapacityError("full")), CapacityError, None),
        (task_error(ValidationError("bad", param="x")), ValidationError, None),
        (task_error(ProviderError("slow", Fault.TIMEOUT, "p")), ProviderError, Fault.TIMEOUT),
        (task_error(KeyError("secret")), ProviderError, Fault.BAD_RESPONSE),
        (ray.exceptions.RayActorError(), ProviderError, Fault.REFUSED),
        (ray.exceptions.ActorUnavailableError("x", b"1" * 16), ProviderError, Fault.REFUSED),
        (ray.exceptions.NodeDiedError("x"), ProviderError, Fault.REFUSED),
        (RequestCancelledError("r"), ProviderError, Fault.REFUSED),
        (RayServeException("x"), ProviderError, Fault.REFUSED),
        (KeyError("secret"), ProviderError, Fault.BAD_RESPONSE),
    ],
)
def test_rays_errors_in_our_words(error: Exception, kind: type[ParleyError], fault: Fault | None) -> None:
    ours = from_ray(error, SPEC)
    assert type(ours) is kind and "secret" not in str(ours) and "trace" not in str(ours)
    assert getattr(ours, "fault", None) is fault
    if kind is CapacityError and not isinstance(getattr(error, "cause", None), CapacityError):
        assert ours.retry_after_s in (1.0, 7.0)


class PlayedEngine(PlayedCompleter):
    """An Engine whose start can be held or fail."""

    def __init__(self, starts: list[Any]) -> None:
        super().__init__()
        self.starts = starts
        self.started = self.shut = 0

    async def start(self) -> None:
        self.started += 1
        step = self.starts.pop(0) if self.starts else None
        if asyncio.isfuture(step):
            await step
        if isinstance(step, Exception):
            raise step

    async def shutdown(self) -> None:
        self.shut += 1


async def test_an_engine_starts_once_for_all_callers_even_if_the_first_one_leaves() -> None:
    gate = asyncio.get_running_loop().create_future()
    engine = PlayedEngine([gate])
    model = EngineCompleter(lambda: engine)  # type: ignore[arg-type,return-value]
    first = asyncio.create_task(model.complete(CALL))
    second = asyncio.create_task(model.complete(CALL))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    gate.set_result(None)
    assert (await second).text == "ok" and engine.started == 1
    assert [i async for i in model.stream(CALL)]
    await model.abort("x")
    await model.aclose()
    await model.aclose()
    assert engine.shut == 1


async def test_a_failed_start_is_told_and_tried_again() -> None:
    engine = PlayedEngine([ValidationError("no such folder", param="location")])
    model = EngineCompleter(lambda: engine)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValidationError, match="no such folder"):
        await model.complete(CALL)
    assert (await model.complete(CALL)).text == "ok"
    assert engine.started == 2 and engine.shut == 1


async def test_closing_stops_a_start_that_is_under_way() -> None:
    engine = PlayedEngine([asyncio.get_running_loop().create_future()])
    model = EngineCompleter(lambda: engine)  # type: ignore[arg-type,return-value]
    caller = asyncio.create_task(model.complete(CALL))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await model.aclose()
    await asyncio.wait([caller])
    assert caller.cancelled() and engine.shut == 1
