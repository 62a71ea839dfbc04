"""Runs whose flow, models or prompts the catalog no longer has."""

from __future__ import annotations

import pytest

from flows.builder import FlowGraphs
from registries.catalog import Catalog
from registries.contracts.errors import LeaseLost, ValidationError
from tests.unit.flows.attempts import FailingSaver, Run, committed
from tests.unit.flows.fakes import PACKAGE, catalog_with, flow_of


async def test_a_model_that_is_gone_fails_only_the_node_that_needs_it() -> None:
    flow = flow_of(
        nodes=[{"id": "one", "model": "nano-s"}, {"id": "two"}], edges=[{"source": "one", "target": "two"}]
    )
    run = Run(flow, FailingSaver(keep=1), FlowGraphs(catalog_with(flow)))
    with pytest.raises(LeaseLost):
        await run.attempt()
    assert await committed(run.saver) == {("one", 1)}
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


def without_prompt(prompt: str) -> Catalog:
    """The package's models and all but one of its prompts; no flows."""
    kept = [spec for spec in PACKAGE.prompts if spec.id != prompt]
    return Catalog(PACKAGE.models, PACKAGE.strategies, kept, (), PACKAGE.tiers)


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
    run.graphs = FlowGraphs(without_prompt("refine"))
    result = await run.attempt()
    assert [(n.id, n.status) for n in result.nodes][-2:] == [
        ("challenger", "completed"),
        ("refiner", "failed"),
    ]
    assert result.error is not None
    assert "unknown prompt 'refine'" in result.error.message


def test_a_flow_that_the_catalog_no_longer_has_can_be_compiled() -> None:
    pinned = PACKAGE.flows.get("challenge").model_copy(update={"description": "as it was"})
    graphs = FlowGraphs(PACKAGE)
    assert graphs.compiled(pinned) is not graphs.compiled(PACKAGE.flows.get("challenge"))
    assert graphs.begun(pinned)[1] is graphs.compiled(pinned)
    bare = FlowGraphs(without_prompt("refine"))
    assert bare.begun(pinned)[0].entries == ("creator",)
    with pytest.raises(ValidationError, match="unknown prompt 'refine'"):
        bare.compiled(pinned)


@pytest.mark.parametrize("change", [{"description": "as it was"}, {"name": "gone"}])
async def test_a_run_pinned_to_a_version_the_catalog_no_longer_has_is_admitted(
    change: dict[str, str],
) -> None:
    pinned = PACKAGE.flows.get("challenge").model_copy(update=change)
    run = Run(pinned, FailingSaver(), flow_version=pinned.version)
    assert (await run.attempt()).status == "completed"


async def test_a_run_that_has_not_begun_is_refused_when_its_prompt_is_gone() -> None:
    run = Run(PACKAGE.flows.get("challenge"), FailingSaver(), FlowGraphs(without_prompt("refine")))
    result = await run.attempt()
    assert result.error is not None
    assert "nodes[2].prompt: unknown prompt 'refine'" in result.error.message
