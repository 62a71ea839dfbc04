"""A run over several attempts, cut off by a saver that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.node_context import NodePorts
from registries.contracts.errors import LeaseLost
from registries.contracts.runs import Decision, EventType, RunOrder, RunResult
from registries.specs import FlowSpec
from tests.unit.flows.fakes import PACKAGE, Answer, World, arithmetic, order

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


class CutWorld(World):
    """Calls ``cut`` when event number ``at`` has been told, from inside whatever tells it."""

    def __init__(self, at: int, cut: Callable[[], object], **world: Any) -> None:
        super().__init__(**{"cost_micro_usd": 7, **world})
        self.at, self.cut = at, cut

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        await self.events.emit(type, node, data, attempt)
        if len(self.events.seen) == self.at:
            self.cut()
            await asyncio.sleep(0)

    def ports(self) -> NodePorts:
        return replace(super().ports(), events=self)


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


async def committed(saver: FailingSaver) -> set[tuple[str, int]]:
    found = await InMemorySaver.aget_tuple(saver, {"configurable": {"thread_id": "run-1"}})
    if found is None:
        return set()
    kept = list(found.checkpoint["channel_values"].get("results", ()))
    kept += [
        result for _, channel, value in found.pending_writes or () if channel == "results" for result in value
    ]
    return {(result["id"], result["visit"]) for result in kept}
