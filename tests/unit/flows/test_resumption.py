"""A run that was cut off anywhere ends as if nothing had happened, and what is kept is not asked again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from flows.builder import FlowGraphs
from flows.resumption import where_stopped
from flows.run_thread import RunThread
from flows.state import STATE_VERSION, AgentState
from registries.contracts.errors import Fault, LeaseLost, ProviderError, StoreError, ValidationError
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import EventType
from registries.specs import FlowSpec
from tests.unit.flows.attempts import CutWorld, FailingSaver, Run, committed, told
from tests.unit.flows.fakes import PACKAGE, World, arithmetic, catalog_with, flow_of

FLOWS = sorted(PACKAGE.flows.names())
GRAPHS = FlowGraphs(PACKAGE)


async def whole(flow: FlowSpec) -> tuple[dict[str, Any], Run]:
    run = Run(flow, FailingSaver())
    return told(await run.finish()), run


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("error", [LeaseLost, StoreError, RuntimeError])
async def test_cut_off_at_any_write_it_ends_the_same(name: str, error: type[Exception]) -> None:
    expected, undisturbed = await whole(PACKAGE.flows.get(name))
    for at in range(1, undisturbed.saver.made + 1):
        run = Run(PACKAGE.flows.get(name), FailingSaver(at, error))
        with pytest.raises(error):
            await run.finish()
        kept = await committed(run.saver)
        done_before = run.calls()
        run.saver.heal()
        assert told(await run.finish()) == expected, f"write {at}"
        for call_id, count in run.calls().items():
            node, visit = call_id.split(":")[1:]
            again = count - done_before[call_id]
            assert (again == 0) if (node, int(visit)) in kept else (again == 1), (at, call_id)
        assert set(run.calls()) == set(undisturbed.calls())


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("how", ["lost", "cancelled"])
async def test_cut_off_at_any_event_it_ends_the_same(name: str, how: str) -> None:
    expected, undisturbed = await whole(PACKAGE.flows.get(name))
    for at in range(1, len(undisturbed.worlds[0].events.seen) + 1):
        run = Run(PACKAGE.flows.get(name), FailingSaver())
        await cut(run, at, how)
        kept = await committed(run.saver)
        before = run.calls()
        assert told(await run.finish()) == expected, f"event {at}"
        again = {call_id for call_id, count in run.calls().items() if count > before[call_id]}
        assert not again & {f"run-1:{node}:{visit}" for node, visit in kept}, f"event {at}"


async def cut(run: Run, at: int, how: str) -> None:
    """An attempt that ends at its event number ``at``: its lease is lost, or it is cancelled."""
    if how == "cancelled":
        task = asyncio.ensure_future(run.attempt(CutWorld(at, lambda: task.cancel())))
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return

    def lose() -> None:
        raise LeaseLost("taken over")

    with contextlib.suppress(LeaseLost):
        await run.attempt(CutWorld(at, lose))


@given(name=st.sampled_from(FLOWS), cuts=st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=5))
@settings(max_examples=30, deadline=None)
def test_cut_off_again_and_again_it_ends_the_same(name: str, cuts: list[tuple[int, bool]]) -> None:
    async def go() -> None:
        expected, _ = await whole(PACKAGE.flows.get(name))
        run = Run(PACKAGE.flows.get(name), FailingSaver())
        for at, cancelled in cuts:
            await cut(run, at, "cancelled" if cancelled else "lost")
        assert told(await run.finish()) == expected
        starts = run.started()
        assert len(set(starts)) == len(starts)

    asyncio.run(go())


def strict(name: str) -> FlowSpec:
    """The flow, unable to do without any of its nodes."""
    flow = PACKAGE.flows.get(name)
    return flow.model_copy(
        update={"nodes": tuple(n.model_copy(update={"on_error": "fail"}) for n in flow.nodes)}
    )


@pytest.mark.parametrize("name", FLOWS)
async def test_after_a_failure_only_what_is_not_committed_runs(name: str) -> None:
    expected, undisturbed = await whole(strict(name))
    for failing in undisturbed.calls():

        def breaks(request: GenerationRequest, failing: str = failing) -> str | Exception:
            return (
                ProviderError("down", Fault.REFUSED) if request.request_id == failing else arithmetic(request)
            )

        run = Run(strict(name), FailingSaver(), answer=breaks)
        failed = await run.finish()
        assert failed.status == "failed"
        assert failed.error is not None and failed.error.code == "provider_error"
        kept = await committed(run.saver)
        before = run.calls()
        run.answer = arithmetic
        assert told(await run.finish()) == expected
        for call_id, count in run.calls().items():
            node, visit = call_id.split(":")[1:]
            assert count - before[call_id] == ((node, int(visit)) not in kept), call_id
        assert run.calls()[failing] == 2


async def test_events_of_a_node_that_runs_again_have_a_higher_attempt() -> None:
    flow = flow_of(
        nodes=[{"id": "one"}, {"id": "two", "retry": {"max_retries": 2, "backoff_factor": 1}}],
        edges=[{"source": "one", "target": "two"}],
    )
    down: Any = lambda request: (  # noqa: E731 - one expression, given twice
        ProviderError("slow", Fault.TIMEOUT) if request.metadata["node"] == "two" else "8"
    )
    run = Run(flow, FailingSaver(), FlowGraphs(catalog_with(flow)), answer=down)
    assert (await run.attempt()).status == "failed"
    assert (await run.attempt()).status == "failed"
    run.answer = lambda request: "9"
    assert (await run.attempt()).status == "completed"
    assert run.started() == [("one", 1, 1), *(("two", 1, attempt) for attempt in range(1, 8))]
    last = run.worlds[-1].events.seen
    assert {attempt for *_, attempt in last} == {7}


async def test_money_spent_before_counts() -> None:
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver(keep=1), budget_usd=0.000015)
    with pytest.raises(LeaseLost):
        await run.attempt()
    assert dict(run.calls()) == {"run-1:creator:1": 1, "run-1:challenger:1": 1}
    run.saver.heal()
    result = await run.attempt()
    assert result.error is not None
    assert result.error.param == "budget_usd"
    assert dict(run.calls()) == {"run-1:creator:1": 1, "run-1:challenger:1": 2, "run-1:refiner:1": 1}


async def test_a_first_attempt_reads_the_saver_once() -> None:
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver())
    await run.attempt()
    await run.attempt()
    assert run.saver.reads == 2


async def test_a_finished_run_ends_again_without_a_call() -> None:
    run = Run(PACKAGE.flows.get("linear"), FailingSaver())
    first = await run.finish()
    assert told(await run.finish()) == told(first)
    assert set(run.calls().values()) == {1}
    assert run.worlds[-1].events.seen == []
    assert run.worlds[0].events.seen != []


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", ["node.started", "node.token", "node.completed"])
@pytest.mark.parametrize("error", [LeaseLost("taken over"), StoreError("down")])
async def test_a_lost_lease_stops_the_node_before_it_asks_and_the_graph_with_it(
    name: str, kind: EventType, error: Exception
) -> None:
    class Lost(World):
        async def emit(
            self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
        ) -> None:
            await self.events.emit(type, node, data, attempt)
            if type == kind:
                raise error

        def ports(self) -> Any:
            ports = super().ports()
            object.__setattr__(ports, "events", self)
            return ports

    run = Run(PACKAGE.flows.get(name), FailingSaver())
    world = Lost()
    with pytest.raises(type(error)):
        await run.attempt(world)
    first = {call_id for call_id in run.calls() if call_id.split(":")[1] in entries(run.flow)}
    assert set(run.calls()) <= (set() if kind == "node.started" else first)
    assert {name for name, _ in await committed(run.saver)} <= {"analyzer", "monitor"}


def entries(flow: FlowSpec) -> set[str]:
    """Nodes that ask a model before any other does."""
    return {"execution"} if flow.name == "linear" else set(GRAPHS.plan(flow).entries)


async def test_a_fault_of_the_saver_stops_the_run_though_it_waits() -> None:
    """LangGraph itself drops the error of a task write when the graph ends with a question."""

    class NoTaskWrites(FailingSaver):
        async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
            if any(channel == "__interrupt__" for channel, _ in args[1]):
                raise StoreError("down")
            await super().aput_writes(*args, **kwargs)

    run = Run(PACKAGE.flows.get("reviewed_challenge"), NoTaskWrites())
    with pytest.raises(StoreError):
        await run.attempt()


async def test_a_flow_without_the_node_that_comes_next_is_refused() -> None:
    """LangGraph would end such a run at once, as if it were complete."""
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver(keep=2))
    with pytest.raises(LeaseLost):
        await run.attempt()
    run.saver.heal()
    spec = json.loads(run.flow.model_dump_json().replace('"refiner"', '"mender"'))
    run.flow = FlowSpec.model_validate(spec)
    result = await run.attempt()
    assert result.error is not None
    assert (result.error.code, result.error.param) == ("invalid_request", "flow_version")
    assert "unknown here: refiner" in result.error.message


async def test_a_state_of_a_later_version_is_refused() -> None:
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver(keep=0))
    with pytest.raises(LeaseLost):
        await run.attempt()
    run.saver.heal()
    saved = await run.saver.aget_tuple({"configurable": {"thread_id": "run-1"}})
    values = {**saved.checkpoint["channel_values"], "version": STATE_VERSION + 1}
    later = RunThread(run.saver, saved._replace(checkpoint={**saved.checkpoint, "channel_values": values}))
    assert later.saved is not None
    with pytest.raises(ValidationError, match="known here: up to 1"):
        where_stopped(later.saved, run.flow)


@pytest.mark.parametrize("name", FLOWS)
async def test_all_that_is_kept_is_json(name: str) -> None:
    run = Run(PACKAGE.flows.get(name), FailingSaver(keep=1))
    run.saver.serde = JsonPlusSerializer(allowed_msgpack_modules=None)  # LANGGRAPH_STRICT_MSGPACK
    with pytest.raises(LeaseLost):
        await run.finish()
    run.saver.heal()
    assert (await run.finish()).status == "completed"
    kept = [item async for item in run.saver.alist({"configurable": {"thread_id": "run-1"}})]
    assert len(kept) > 3
    for item in kept:
        values = item.checkpoint["channel_values"]
        state = {key: value for key, value in values.items() if key in AgentState.__annotations__}
        written = [value for _, channel, value in item.pending_writes or () if channel in state]
        for value in (state, values.get("__start__"), *written, item.metadata):
            assert json.loads(json.dumps(value)) == value
    assert set(AgentState.__annotations__) <= set(kept[0].checkpoint["channel_values"])
