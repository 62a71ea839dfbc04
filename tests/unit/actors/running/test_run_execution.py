from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.gateway.faults import FULL
from actors.running import pending_writes
from actors.running.audience import Audience
from actors.running.event_patience import BEGIN_PATIENCE_S
from actors.running.ports import GpuResources
from actors.running.run_execution import HandedOver, RunExecution, RunParts
from actors.stores.open_store import open_store
from actors.stores.records import Lease, NewRun, RunWrite
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.builder import FlowGraphs
from flows.ports import EventSink, Generator
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import (
    CancelledRun,
    CapacityError,
    Conflict,
    InternalError,
    LeaseLost,
    ParleyError,
    ProviderError,
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
from tests.unit.flows.fakes import FakeGenerator

CATALOG = load_catalog()
RUN = "run-1"


class WatchedStore:
    """A real store whose commits can be held back or refused."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.commits = 0
        self.told: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.commits += 1
        self.told.append([event.type for event in write.events])
        await self._inner.commit(lease, write)

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        self.commits += 1
        await self._inner.finish(lease, result, write)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    opened = await open_store(RuntimeConfig(home=str(tmp_path / "home")))
    yield WatchedStore(opened)
    await opened.close()


class NoPlacement:
    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("this flow places nothing")


async def execution(
    store: WatchedStore,
    outputs: Path,
    generator: FakeGenerator | None = None,
    linger_s: float = 0.001,
    begin_patience_s: float = BEGIN_PATIENCE_S,
    is_held: Callable[[], bool] = lambda: True,
    audience: Audience = Audience(),
    **request: Any,
) -> RunExecution:
    def no_placement(_: EventSink, __: Generator, ___: Callable[[], None]) -> NoPlacement:
        return NoPlacement()

    parts = RunParts(
        generator=generator or FakeGenerator(),
        store=store,  # type: ignore[arg-type]
        graphs=FlowGraphs(CATALOG),
        metrics=Metrics(NullSink(), "test"),
        placement=no_placement,
        resources=GpuResources(6.0),
        outputs_root=outputs,
        linger_s=lambda: linger_s,
        begin_patience_s=lambda: begin_patience_s,
    )
    deadline_s = request.pop("deadline_s", 20.0)
    flow = CATALOG.flows.get(request.pop("flow", "challenge"))
    asked = RunRequest(**{"prompt": "What is 48 + 37?", "flow_type": flow.name, **request})
    order = RunOrder(run_id=RUN, request_id="req-1", request=asked, deadline_s=deadline_s)
    new = NewRun(order, flow.version, flow.model_dump(mode="json"))
    claimed = await store.claim(new, "owner", 60.0, 3)
    assert claimed is not None
    return RunExecution(claimed, flow, parts, is_held, audience)


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


async def stored(store: WatchedStore) -> dict[str, Any]:
    run: dict[str, Any] | None = await store.get(RUN, "default")
    assert run is not None
    return run


async def test_the_result_is_the_same_in_event_store_and_file(store: WatchedStore, tmp_path: Path) -> None:
    events, error = await finished(await execution(store, tmp_path, target="85"))
    result = result_of(events)
    assert error is None and result.status == "completed"
    assert events[0].type == "run.started" and events[-1].type == "run.completed"
    run = await stored(store)
    assert run["status"] == "completed" and RunResult.model_validate(run["result"]) == result
    artifact = json.loads(Path(result.artifact or "").read_text())
    assert artifact["answer"] == result.answer and artifact["artifact"] == result.artifact
    assert {node.id for node in result.nodes} >= {"creator", "challenger", "refiner"}
    durable = [event for event in events if event.type != "node.token"]
    assert await store.events(RUN, "default", after=1) == durable
    assert [event.seq for event in durable] == list(range(2, len(durable) + 2))


async def test_an_instant_three_node_run_takes_three_commits_beside_its_acceptance(
    store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this machine is: nothing but a checkpoint makes a commit due.
    monkeypatch.setattr(pending_writes, "TASK_PATIENCE_S", 60.0)
    monkeypatch.setattr(pending_writes, "END_PATIENCE_S", 60.0)
    alone = Audience(events=False)
    patient = {"linger_s": 60.0, "begin_patience_s": 60.0, "audience": alone}
    run = await execution(store, tmp_path, **patient, input={"rounds": 1})
    events, _ = await finished(run)
    visits = [event for event in events if event.type == "node.completed"]
    # Accepted, claimed, and one for each node, the last one's with the end: at most six for three nodes.
    assert len(visits) == 3 and store.commits == len(visits), store.told


@pytest.mark.parametrize("stream", [False, True])
async def test_no_model_is_called_once_the_lease_is_not_sure_though_its_node_began(
    store: WatchedStore, tmp_path: Path, stream: bool
) -> None:
    readings = iter([True])
    generator = FakeGenerator()
    held = {"is_held": lambda: next(readings, False), "audience": Audience(tokens=stream)}
    run = await execution(store, tmp_path, generator, **held)
    events, error = await finished(run)
    assert isinstance(error, LeaseLost)
    assert generator.requests == []
    assert [event.type for event in events if event.type in TERMINAL_EVENTS] == []
    assert (await stored(store))["status"] == "running", "another runner's to end"


async def test_readers_see_what_begins_however_busy_its_runner_is(
    store: WatchedStore, tmp_path: Path
) -> None:
    generator = FakeGenerator(pause=lambda _: asyncio.sleep(60))
    run = await execution(store, tmp_path, generator, begin_patience_s=60.0)
    ended = asyncio.create_task(finished(run))

    async def is_told() -> bool:
        return "node.started" in [event.type for event in await store.events(RUN, "default")]

    await until(is_told, 5)
    run.cancel(CancelledRun("enough"))
    await ended


async def test_a_cancelled_run_keeps_what_it_had_and_aborts_its_call(
    store: WatchedStore, tmp_path: Path
) -> None:
    waiting = asyncio.Event()

    async def pause(request: GenerationRequest) -> None:
        if "Check it." in request.prompt:
            waiting.set()
            await asyncio.sleep(60)

    generator = FakeGenerator(pause=pause)
    run = await execution(store, tmp_path, generator)
    ended = asyncio.create_task(finished(run))
    await asyncio.wait_for(waiting.wait(), 5)
    run.cancel(CancelledRun("the client went away"))
    events, error = await ended
    result = result_of(events)
    assert error is None and events[-1].type == "run.cancelled"
    assert result.status == "cancelled" and result.error is not None
    assert [node.id for node in result.nodes] == ["creator"]
    assert generator.aborted and (await stored(store))["status"] == "cancelled"
    assert result.usage == result.nodes[0].usage


async def test_the_deadline_ends_it(store: WatchedStore, tmp_path: Path) -> None:
    generator = FakeGenerator(pause=lambda _: asyncio.sleep(60))
    events, _ = await finished(await execution(store, tmp_path, generator, deadline_s=0.3))
    result = result_of(events)
    assert result.status == "failed" and result.error is not None and result.error.code == "budget_exceeded"


async def test_a_provider_s_failure_is_the_run_s(store: WatchedStore, tmp_path: Path) -> None:
    generator = FakeGenerator(answer=lambda _: ProviderError("it is down"))
    events, _ = await finished(await execution(store, tmp_path, generator))
    result = result_of(events)
    assert result.status == "failed" and result.error is not None and result.error.code == "provider_error"
    assert events[-1].type == "run.failed"


async def test_a_bug_is_told_without_its_words(store: WatchedStore, tmp_path: Path) -> None:
    run = await execution(store, tmp_path)
    store.refusal = KeyError("internal words")
    events, error = await finished(run)
    assert isinstance(error, InternalError) and "internal words" not in str(error)
    assert not any(event.type in TERMINAL_EVENTS for event in events)


async def test_an_end_that_cannot_be_written_is_told(store: WatchedStore, tmp_path: Path) -> None:
    store.gate.clear()
    run = await execution(store, tmp_path)
    ended = asyncio.create_task(finished(run))
    await until(lambda: prepared(tmp_path), 5)
    store.refusal = Conflict("a duplicate row")
    store.gate.set()
    events, error = await ended
    assert isinstance(error, Conflict)
    assert events[-1].type not in TERMINAL_EVENTS
    assert list((tmp_path / "challenge_flows").iterdir()) == [], "an end that nobody committed"


def prepared(folder: Path) -> bool:
    """Whether the result's file lies beside its place: the end is about to be committed."""
    return bool(list(folder.glob(f"challenge_flows/.{RUN}.json.*")))


async def test_a_run_that_another_runner_took_over_stops_and_writes_nothing(
    store: WatchedStore, tmp_path: Path
) -> None:
    called = asyncio.Event()

    async def pause(_: GenerationRequest) -> None:
        called.set()
        await asyncio.sleep(60)

    generator = FakeGenerator(pause=pause)
    run = await execution(store, tmp_path, generator)
    ended = asyncio.create_task(finished(run))
    await asyncio.wait_for(called.wait(), 5)

    async def told() -> bool:
        return "node.started" in [event.type for event in await store.events(RUN, "default")]

    await until(told, 5)
    before = await store.events(RUN, "default")
    run.lose()
    _, error = await asyncio.wait_for(ended, 5)
    assert isinstance(error, LeaseLost) and generator.aborted
    assert (await stored(store))["status"] == "running"
    assert await store.events(RUN, "default") == before


async def test_a_call_that_waited_for_a_full_model_looks_at_the_lease_again(
    store: WatchedStore, tmp_path: Path
) -> None:
    """A runner that was stopped in that pause wakes up with its timer due, and its run somebody else's."""
    lost = False

    async def full(_: GenerationRequest) -> None:
        nonlocal lost
        lost = True
        raise CapacityError("full", retry_after_s=0.001, context={FULL: True})

    generator = FakeGenerator(pause=full)
    run = await execution(store, tmp_path, generator, is_held=lambda: not lost)
    _, error = await asyncio.wait_for(finished(run), 10)
    assert isinstance(error, LeaseLost)
    assert len(generator.requests) == 1


async def test_a_run_that_is_handed_over_goes_on_where_it_was(store: WatchedStore, tmp_path: Path) -> None:
    checking = asyncio.Event()

    async def pause(request: GenerationRequest) -> None:
        if "Check it." in request.prompt:
            checking.set()
            await asyncio.sleep(60)

    run = await execution(store, tmp_path, FakeGenerator(pause=pause))
    ended = asyncio.create_task(finished(run))
    await asyncio.wait_for(checking.wait(), 5)
    run.hand_over()
    _, error = await asyncio.wait_for(ended, 5)
    assert isinstance(error, HandedOver)
    assert (await stored(store))["status"] == "queued"
    [claimed] = await store.claim_next("another", 60.0, 3, 5)
    assert claimed.order.attempt == 2
    generator = FakeGenerator()
    second = RunExecution(claimed, CATALOG.flows.get("challenge"), run._parts)
    second._parts = type(run._parts)(
        **{name: getattr(run._parts, name) for name in run._parts.__slots__} | {"generator": generator}
    )
    events, error = await finished(second)
    assert error is None
    result = result_of(events)
    assert result.status == "completed" and result.nodes[0].id == "creator"
    assert not any(request.request_id.startswith(f"{RUN}:creator") for request in generator.requests)
    log = await store.events(RUN, "default")
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    assert [e.type for e in log].count("run.released") == 1


async def test_a_folder_that_cannot_be_written_costs_the_file_alone(
    store: WatchedStore, tmp_path: Path
) -> None:
    (tmp_path / "challenge_flows").write_text("in the way")
    events, _ = await finished(await execution(store, tmp_path))
    result = result_of(events)
    assert result.status == "completed" and result.artifact is None
    assert any("challenge_flows" in notice for notice in result.notices)


async def test_a_cancellation_that_comes_while_the_end_is_written_is_too_late(
    store: WatchedStore, tmp_path: Path
) -> None:
    store.gate.clear()
    run = await execution(store, tmp_path)
    ended = asyncio.create_task(finished(run))
    await until(lambda: prepared(tmp_path), 5)
    run.cancel(CancelledRun("too late"))
    await asyncio.sleep(0.01)
    store.gate.set()
    events, error = await ended
    assert error is None and result_of(events).status == "completed"
    assert [file.name for file in (tmp_path / "challenge_flows").iterdir()] == [f"{RUN}.json"]
