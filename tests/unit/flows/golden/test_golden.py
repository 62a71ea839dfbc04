"""States that earlier versions have kept: today's code goes on with every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.state import STATE_VERSION
from registries.contracts.runs import Decision
from registries.specs import FlowSpec
from tests.unit.flows.fakes import PACKAGE, World, order
from tests.unit.flows.golden.frozen import FOLDER, read, thaw

FILES = sorted(FOLDER.glob("*.v*.json"))


def test_every_flow_has_a_state_of_this_version() -> None:
    names = {path.name for path in FILES}
    assert {f"{name}.v{STATE_VERSION}.json" for name in PACKAGE.flows.names()} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_frozen_run_ends_as_it_would_have(path: Path) -> None:
    golden = read(path)
    flow = FlowSpec.model_validate(golden["flow"])
    assert flow.version == golden["flow_version"], (
        "runs are pinned to versions: the same flow must keep its own"
    )
    for at, stop in enumerate(golden["stops"]):
        saver, graphs, decision = await thaw(stop), FlowGraphs(PACKAGE), None
        calls = []
        while True:
            world = World(cost_micro_usd=7)
            result = await execute_flow(order(flow.name), flow, graphs, world.ports(), saver, decision)
            calls += [request.metadata["node"] for request in world.generator.requests]
            if result.waiting is None:
                break
            decision = Decision(action="approve", interrupt_id=result.waiting.interrupt_id)
        assert result.answer == golden["expected"]["answer"], f"stop {at}"
        nodes = sorted([n.id, n.visit, n.status, n.text] for n in result.nodes)
        assert nodes == golden["expected"]["nodes"], f"stop {at}"
        asking = [n for n in result.nodes if n.model_resolved]
        assert len(calls) == max(0, len(asking) - sum(_kept(stop, n.id, n.visit) for n in asking)), (
            f"stop {at}"
        )


def _kept(stop: dict[str, object], node: str, visit: int) -> bool:
    """Whether the frozen state holds this visit."""
    checkpoint, pending = stop["checkpoint"], stop["pending_writes"]
    assert isinstance(checkpoint, dict) and isinstance(pending, list)
    found = list(checkpoint["channel_values"].get("results", ()))
    found += [result for _, channel, value in pending if channel == "results" for result in value]
    return any((result["id"], result["visit"]) == (node, visit) for result in found)
