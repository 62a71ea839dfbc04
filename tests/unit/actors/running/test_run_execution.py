from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.running.ports import GpuResources
from actors.running.run_execution import RunExecution, RunParts
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.builder import FlowGraphs
from flows.ports import EventSink
from registries.contracts.errors import (
    CancelledRun,
    Conflict,
    InternalError,
    ParleyError,
    ProviderError,
    StoreError,
)
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import (
    TERMINAL_EVENTS,
    NodeResult,
    RunEvent,
    RunOrder,
    RunRequest,
    RunResult,
)
from registries.loader import load_catalog
from tests.polling import until
from tests.unit.actors.running.fakes import MemoryStore
from tests.unit.flows.fakes import FakeGenerator

CATALOG = load_catalog()


class NoPlacement:
    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("this flow places nothing")


def execution(
    store: MemoryStore, outputs: Path, generator: FakeGenerator | None = None, **request: Any
) -> RunExecution:
    def no_placement(_: EventSink) -> NoPlacement:
        return NoPlacement()

    parts = RunParts(
        generator=generator or FakeGenerator(),
        store=store,
        graphs=FlowGraphs(CATALOG),
        metrics=Metrics(NullSink(), "test"),
        placement=no_placement,
        resources=GpuResources(6.0),
        outputs_root=outputs,
        linger_s=lambda: 0.001,
    )
    deadline_s = request.pop("deadline_s", 20.0)
    asked = RunRequest(**{"prompt": "What is 48 + 37?", "flow_type": "challenge", **request})
    order = RunOrder(run_id="run-1", request_id="req-1", request=asked, deadline_s=deadline_s)
    return RunExecution(order, CATALOG.flows.get("challenge"), parts)


async def finished(run: RunExecution) -> tuple[list[RunEvent], ParleyError | None]:
    reader = run.log.reader()
    run.task = asyncio.create_task(run.work())
    events: list[RunEvent] = []
    try:
        async for batch in reader.batches():
            events.extend(batch)
    except ParleyError as error:
        await run.task
        return events, error
    await run.task
    return events, None


def result_of(events: list[RunEvent]) -> RunResult:
    return RunResult.model_validate(events[-1].data["result"])


async def test_the_result_is_the_same_in_event_store_and_file(tmp_path: Path) -> None:
    store = MemoryStore()
    events, error = await finished(execution(store, tmp_path, target="85"))
    result = result_of(events)
    assert error is None and result.status == "completed"
    assert events[0].type == "run.started" and events[-1].type == "run.completed"
    assert store.results["run-1"] == result
    artifact = json.loads(Path(result.artifact or "").read_text())
    assert artifact["answer"] == result.answer and artifact["artifact"] == result.artifact
    assert {node.id for node in result.nodes} >= {"creator", "challenger", "refiner"}


async def test_a_cancelled_run_keeps_what_it_had_and_aborts_its_call(tmp_path: Path) -> None:
    store = MemoryStore()
    waiting = asyncio.Event()

    async def pause(request: GenerationRequest) -> None:
        if "Check it." in request.prompt:
            waiting.set()
            await asyncio.sleep(60)

    generator = FakeGenerator(pause=pause)
    run = execution(store, tmp_path, generator)
    ended = asyncio.create_task(finished(run))
    await asyncio.wait_for(waiting.wait(), 5)
    run.cancel(CancelledRun("the client went away"))
    events, error = await ended
    result = result_of(events)
    assert error is None and events[-1].type == "run.cancelled"
    assert result.status == "cancelled" and result.error is not None
    assert [node.id for node in result.nodes] == ["creator"]
    assert generator.aborted and store.results["run-1"].status == "cancelled"
    assert result.usage == result.nodes[0].usage


async def test_the_deadline_ends_it(tmp_path: Path) -> None:
    generator = FakeGenerator(pause=lambda _: asyncio.sleep(60))
    events, _ = await finished(execution(MemoryStore(), tmp_path, generator, deadline_s=0.2))
    result = result_of(events)
    assert result.status == "failed" and result.error is not None and result.error.code == "budget_exceeded"


async def test_a_provider_s_failure_is_the_run_s(tmp_path: Path) -> None:
    generator = FakeGenerator(answer=lambda _: ProviderError("it is down"))
    events, _ = await finished(execution(MemoryStore(), tmp_path, generator))
    result = result_of(events)
    assert result.status == "failed" and result.error is not None and result.error.code == "provider_error"
    assert events[-1].type == "run.failed"


async def test_a_run_that_somebody_has_is_a_conflict(tmp_path: Path) -> None:
    store = MemoryStore()
    store.claimed = 1
    events, error = await finished(execution(store, tmp_path))
    assert events == [] and isinstance(error, Conflict)


async def test_a_bug_is_told_without_its_words(tmp_path: Path) -> None:
    class Buggy(MemoryStore):
        async def claim(self, order: RunOrder, flow_version: str) -> int | None:
            raise KeyError("internal words")

    events, error = await finished(execution(Buggy(), tmp_path))
    assert events == [] and isinstance(error, InternalError) and "internal words" not in str(error)


async def test_a_store_that_is_away_at_the_claim_is_told(tmp_path: Path) -> None:
    class Away(MemoryStore):
        async def claim(self, order: RunOrder, flow_version: str) -> int | None:
            raise StoreError("the disk is away")

    events, error = await finished(execution(Away(), tmp_path))
    assert events == [] and isinstance(error, StoreError)


async def test_an_end_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    class NoEnd(MemoryStore):
        async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool:
            raise Conflict("a duplicate row")

    events, error = await finished(execution(NoEnd(), tmp_path))
    assert isinstance(error, Conflict)
    assert events[-1].type not in TERMINAL_EVENTS


async def test_a_run_that_another_runner_took_over_stops(tmp_path: Path) -> None:
    class TakenOver(MemoryStore):
        async def append_events(self, events: Sequence[RunEvent]) -> None:
            raise Conflict("another runner has written these")

    generator = FakeGenerator(pause=lambda _: asyncio.sleep(60))
    store = TakenOver()
    _, error = await asyncio.wait_for(finished(execution(store, tmp_path, generator)), 5)
    assert isinstance(error, Conflict) and store.results == {}
    assert generator.aborted


async def test_a_folder_that_cannot_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "challenge_flows").write_text("in the way")
    events, _ = await finished(execution(MemoryStore(), tmp_path))
    result = result_of(events)
    assert result.status == "completed" and result.artifact is None
    assert any("challenge_flows" in notice for notice in result.notices)


async def test_a_cancellation_that_comes_while_the_end_is_written_is_too_late(tmp_path: Path) -> None:
    store = MemoryStore()
    store.gate.clear()
    run = execution(store, tmp_path)
    ended = asyncio.create_task(finished(run))
    artifact = tmp_path / "challenge_flows" / "run-1.json"
    await until(artifact.exists, 5)
    run.cancel(CancelledRun("too late"))
    await asyncio.sleep(0.01)
    store.gate.set()
    events, error = await ended
    assert error is None and result_of(events).status == "completed"


@pytest.mark.parametrize("reason", [None, CancelledRun("stop")])
async def test_a_run_that_is_cancelled_before_its_claim_says_so(
    tmp_path: Path, reason: CancelledRun | None
) -> None:
    class Slow(MemoryStore):
        async def claim(self, order: RunOrder, flow_version: str) -> int | None:
            await asyncio.sleep(60)
            return 0

    run = execution(Slow(), tmp_path)
    ended = asyncio.create_task(finished(run))
    await asyncio.sleep(0.01)
    if reason is None:
        assert run.task is not None
        run.task.cancel()
    else:
        run.cancel(reason)
    _, error = await ended
    assert isinstance(error, CancelledRun)
