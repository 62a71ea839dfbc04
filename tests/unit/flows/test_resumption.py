"""A run that was cut off anywhere ends as if nothing had happened, and what is kept is not asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from registries.catalog import Catalog
from registries.contracts.errors import Fault, LeaseLost, ProviderError, StoreError
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import Decision, EventType, RunOrder, RunResult
from registries.specs import FlowSpec
from tests.unit.flows.fakes import PACKAGE, Answer, World, arithmetic, catalog_with, flow_of, order

FLOWS = sorted(PACKAGE.flows.names())
GRAPHS = FlowGraphs(PACKAGE)


class FailingSaver(InMemorySaver):
    """Raises ``error`` at write number ``at`` (checkpoints and task writes both count) and ever after.

    ``keep`` counts otherwise: so many visits of nodes are written, the next one is not.
    """

    def __init__(
        self, at: int | None = None, error: type[Exception] = LeaseLost, keep: int | None = None
    ) -> None:
        super().__init__()
        self.at, self.error, self.keep = at, error, keep
        self.made = self.reads = self.results = 0

    def heal(self) -> None:
        self.at = self.keep = None

    def _count(self) -> None:
        self.made += 1
        if self.at is not None and self.made >= self.at:
            raise self.error("not written")

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._count()
        return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.results += any(channel == "results" and len(value) > 0 for channel, value in writes)
        if self.keep is not None and self.results > self.keep:
            self.at = self.made
        self._count()
        await super().aput_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> Any:
        self.reads += 1
        return await super().aget_tuple(config)


class Run:
    """One run over its attempts: each has a new world, as each has a new process."""

    def __init__(
        self,
        flow: FlowSpec,
        saver: FailingSaver,
        graphs: FlowGraphs = GRAPHS,
        answer: Answer = arithmetic,
        **request: Any,
    ) -> None:
        self.flow, self.saver, self.graphs = flow, saver, graphs
        self.answer, self.request = answer, request
        self.worlds: list[World] = []

    async def attempt(self, world: World | None = None, decision: Decision | None = None) -> RunResult:
        world = world or World(self.answer, self.graphs.catalog, cost_micro_usd=7)
        self.worlds.append(world)
        return await execute_flow(self._order(), self.flow, self.graphs, world.ports(), self.saver, decision)

    async def finish(self) -> RunResult:
        """To the end; every question is answered yes."""
        result = await self.attempt()
        while result.waiting is not None:
            result = await self.attempt(decision=answer(result, "approve"))
        return result

    def _order(self) -> RunOrder:
        return order(self.flow.name, **self.request).model_copy(update={"attempt": len(self.worlds)})

    def calls(self) -> Counter[str]:
        return Counter(r.request_id for world in self.worlds for r in world.generator.requests)

    def started(self) -> list[tuple[str, int, int]]:
        """(node, visit, attempt) of every node.started."""
        return [
            (str(node), data["visit"], attempt)
            for world in self.worlds
            for type, node, data, attempt in world.events.seen
            if type == "node.started"
        ]


def answer(result: RunResult, action: Any, **values: Any) -> Decision:
    assert result.waiting is not None
    return Decision(action=action, interrupt_id=result.waiting.interrupt_id, **values)


def told(result: RunResult) -> dict[str, Any]:
    """What must not depend on where a run was cut off; parallel nodes end in any order."""
    return {
        "status": result.status,
        "answer": result.answer,
        "nodes": sorted((n.id, n.visit, n.status, n.text, n.usage.completion_tokens) for n in result.nodes),
        "usage": result.usage,
        "rounds": result.rounds,
        "improvement": result.improvement,
        "notices": result.notices,
    }


async def whole(flow: FlowSpec) -> tuple[dict[str, Any], Run]:
    run = Run(flow, FailingSaver())
    return told(await run.finish()), run


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("error", [LeaseLost, StoreError])
async def test_cut_off_at_any_write_it_ends_the_same(name: str, error: type[Exception]) -> None:
    expected, undisturbed = await whole(PACKAGE.flows.get(name))
    for at in range(1, undisturbed.saver.made + 1):
        run = Run(PACKAGE.flows.get(name), FailingSaver(at, error))
        with pytest.raises(error):
            await run.finish()
        committed = await _committed(run.saver)
        done_before = run.calls()
        run.saver.heal()
        assert told(await run.finish()) == expected, f"write {at}"
        for call_id, count in run.calls().items():
            node, visit = call_id.split(":")[1:]
            again = count - done_before[call_id]
            assert (again == 0) if (node, int(visit)) in committed else (again == 1), (at, call_id)
        assert set(run.calls()) == set(undisturbed.calls())


async def _committed(saver: FailingSaver) -> set[tuple[str, int]]:
    found = await InMemorySaver.aget_tuple(saver, {"configurable": {"thread_id": "run-1"}})
    if found is None:
        return set()
    kept = list(found.checkpoint["channel_values"].get("results", ()))
    kept += [
        result for _, channel, value in found.pending_writes or () if channel == "results" for result in value
    ]
    return {(result["id"], result["visit"]) for result in kept}


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
        committed = await _committed(run.saver)
        before = run.calls()
        run.answer = arithmetic
        assert told(await run.finish()) == expected
        for call_id, count in run.calls().items():
            node, visit = call_id.split(":")[1:]
            assert count - before[call_id] == ((node, int(visit)) not in committed), call_id
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
    assert {name for name, _ in await _committed(run.saver)} <= {"analyzer", "monitor"}


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


async def test_a_model_that_is_gone_fails_only_the_node_that_needs_it() -> None:
    flow = flow_of(
        nodes=[{"id": "one", "model": "nano-s"}, {"id": "two"}], edges=[{"source": "one", "target": "two"}]
    )
    run = Run(flow, FailingSaver(keep=1), FlowGraphs(catalog_with(flow)))
    with pytest.raises(LeaseLost):
        await run.attempt()
    assert await _committed(run.saver) == {("one", 1)}
    run.saver.heal()
    run.graphs = FlowGraphs(without("nano-s"))
    assert (await run.attempt()).status == "completed"

    run = Run(flow, FailingSaver(keep=1), FlowGraphs(catalog_with(flow)))
    with pytest.raises(LeaseLost):
        await run.attempt()
    run.saver.heal()
    run.graphs = FlowGraphs(without("nano-m"))
    result = await run.attempt()
    assert [(n.id, n.status) for n in result.nodes] == [("one", "completed"), ("two", "failed")]
    assert result.error is not None
    assert (result.error.code, "nano-m" in result.error.message) == ("not_found", True)
    assert run.worlds[-1].events.names() == ["node.started two", "node.failed two"]


def without(model: str) -> Catalog:
    """The package's catalog when one model has been taken out of it."""
    kept = [spec for spec in PACKAGE.models if spec.key != model]
    return Catalog(kept, PACKAGE.strategies, PACKAGE.prompts, PACKAGE.flows, {})


async def test_a_prompt_that_is_gone_fails_only_the_node_that_needs_it() -> None:
    flow = PACKAGE.flows.get("challenge")
    run = Run(flow, FailingSaver(keep=2))
    with pytest.raises(LeaseLost):
        await run.attempt()
    run.saver.heal()
    prompts = [spec for spec in PACKAGE.prompts if spec.id != "refine"]
    run.graphs = FlowGraphs(Catalog(PACKAGE.models, PACKAGE.strategies, prompts, (), PACKAGE.tiers))
    result = await run.attempt()
    assert [(n.id, n.status) for n in result.nodes][-2:] == [
        ("challenger", "completed"),
        ("refiner", "failed"),
    ]
    assert result.error is not None
    assert "unknown prompt 'refine'" in result.error.message


async def test_a_state_of_another_version_of_the_flow_is_refused() -> None:
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver(keep=2))
    with pytest.raises(LeaseLost):
        await run.attempt()
    run.saver.heal()
    run.flow = run.flow.model_copy(update={"description": "another"})
    result = await run.attempt()
    assert result.error is not None
    assert (result.error.code, result.error.param) == ("invalid_request", "flow_version")
