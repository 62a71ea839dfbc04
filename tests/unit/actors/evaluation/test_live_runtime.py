"""The way to the runner, with a handle that is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError, RequestCancelledError

from actors.evaluation.live_runtime import RunCaller, find_config, first_line, read_config, translated
from actors.evaluation.patience import LostCall
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, InternalError, NotFound, ValidationError
from registries.contracts.runs import RunEvent, RunOrder, RunRequest, RunResult

ORDER = RunOrder(run_id="r", request_id="r", request=RunRequest(prompt="x", flow_type="f"), deadline_s=9)
RESULT = RunResult(run_id="r", flow="f", flow_version="v", status="completed", answer="85")


class FakeRuns:
    """A streaming handle that plays batches, an error, or waits for ever."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.cancelled = False

    def options(self, **options: Any) -> FakeRuns:
        assert options == {"method_name": "run", "stream": True}
        return self

    def remote(self, order: RunOrder) -> FakeRuns:
        assert order is ORDER
        return self

    def cancel(self) -> None:
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[list[RunEvent]]:
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            if step == "wait":
                await asyncio.Event().wait()
            yield step


def event(kind: Any, **data: Any) -> RunEvent:
    return RunEvent(run_id="r", seq=1, time=0.0, type=kind, data=data)


async def test_the_last_event_carries_the_result() -> None:
    last = event("run.completed", result=RESULT.model_dump(mode="json"))
    assert await RunCaller(FakeRuns([event("run.started")], [event("node.started"), last]))(ORDER) == RESULT


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (([event("run.started")],), LostCall),
        ((ActorDiedError(),), LostCall),
        ((asyncio.CancelledError(),), LostCall),
        ((ReplicaUnavailableError("gone"),), LostCall),
        ((RequestCancelledError("x"),), LostCall),
        ((BackPressureError(num_queued_requests=3, max_queued_requests=2),), CapacityError),
        ((RayTaskError("run", "trace", CapacityError("full")),), CapacityError),
        ((RayTaskError("run", "trace", ValueError("odd")),), InternalError),
        ((ValidationError("no such role"),), ValidationError),
    ],
)
async def test_what_goes_wrong_is_told_in_our_words(steps: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        await RunCaller(FakeRuns(*steps))(ORDER)


async def test_giving_up_gives_up_there_too() -> None:
    runs = FakeRuns("wait")
    task = asyncio.ensure_future(RunCaller(runs)(ORDER))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runs.cancelled


def test_no_remote_stack_reaches_the_reader() -> None:
    error = translated(RayError("it broke\n  File secret.py\n"))
    assert str(error) == "the run ended outside the error tree: it broke"
    assert first_line(ValueError()) == "ValueError"


def test_the_configuration_is_found_in_the_home(tmp_path: Path) -> None:
    assert find_config(Path("mine.json"), {}) == Path("mine.json")
    assert find_config(None, {"PARLEY_HOME": "/h"}) == Path("/h/run/config.json")
    assert find_config(None, {"RAY_AUTH_TOKEN_PATH": "/h/ray.token"}) == Path("/h/run/config.json")
    assert find_config(None, {}) == Path.home() / ".parley" / "run" / "config.json"


def test_a_configuration_is_read_or_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(NotFound, match=r"no runtime was found: .* `parley up`"):
        read_config(path)
    path.write_text('{"home": 1, "api_key": "secret"}')
    with pytest.raises(ValidationError) as caught:
        read_config(path)
    assert "secret" not in caught.value.message
    config = RuntimeConfig(home="/h", api_key="k" * 16)
    path.write_text(config.model_dump_json())
    assert read_config(path) == config
