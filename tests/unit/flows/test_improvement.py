"""A judge counts only when it is fit: able, consistent in both orders, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.judge import find_judge, read_scores
from registries.catalog import Catalog
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunResult
from tests.passing_time import skip_time
from tests.unit.flows.fakes import PACKAGE, World, order


def judging_catalog(**tiers: str) -> Catalog:
    """Opus and Gemini are on; both can judge."""
    on = {"claude-opus-5-5", "gemini-3.1-pro"}
    models = [
        model.model_copy(update={"enabled": model.enabled or model.key in on}) for model in PACKAGE.models
    ]
    return Catalog(models, PACKAGE.strategies, PACKAGE.prompts, PACKAGE.flows, {**PACKAGE.tiers, **tiers})


def graded(verdict: Callable[[GenerationRequest], str | Exception]) -> Callable[[GenerationRequest], Any]:
    """creator drafts, challenger objects once, refiner mends; the judge says ``verdict``."""

    def answer(request: GenerationRequest) -> str | Exception:
        if ":judge:" in request.request_id:
            return verdict(request)
        if request.metadata["node"] == "challenger":
            return "Wrong." if request.request_id.endswith(":1") else "Right."
        return request.metadata["node"]

    return answer


DEADLINE_S = 30.0


async def judged(
    verdict: Callable[[GenerationRequest], str | Exception], **world: Any
) -> tuple[RunResult, World]:
    played = World(graded(verdict), catalog=judging_catalog(), **world)
    asked = order(prompt="Is it fair?", deadline_s=DEADLINE_S)
    flow = played.catalog.flows.get("challenge")
    return await execute_flow(asked, flow, FlowGraphs(played.catalog), played.ports()), played


def prefers_refined(request: GenerationRequest) -> str:
    first_is_draft = request.prompt.index("creator") < request.prompt.index("refiner")
    return "SCORES: A=4 B=8" if first_is_draft else "SCORES: A=9 B=4"


async def test_a_judge_that_holds_to_its_word_is_averaged_over_both_orders() -> None:
    result, world = await judged(prefers_refined)
    assert result.improvement.method == "judge"
    assert result.improvement.first_score == pytest.approx(0.4)
    assert result.improvement.final_score == pytest.approx(0.85)
    assert result.improvement.delta == pytest.approx(0.45)
    calls = [r for r in world.generator.requests if ":judge:" in r.request_id]
    assert [(call.model_key, call.temperature) for call in calls] == [("claude-opus-5-5", 0.0)] * 2


async def test_judging_is_part_of_the_runs_usage() -> None:
    result, _ = await judged(prefers_refined, cost_micro_usd=5)
    assert result.usage.cost_micro_usd == 5 * (len(result.nodes) + 2)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (lambda r: "SCORES: A=9 B=2", "changed its mind when the order was swapped"),
        (lambda r: "Both are fine.", "gave no scores"),
        (lambda r: "SCORES: A=90 B=2", "gave no scores"),
        (lambda r: ProviderError("over quota", Fault.RATE_LIMITED), "failed: over quota"),
    ],
)
async def test_a_judge_that_is_not_fit_leaves_a_reason(verdict: Any, reason: str) -> None:
    result, _ = await judged(verdict)
    assert result.status == "completed"
    assert result.improvement.delta is None
    assert reason in (result.improvement.reason or "")


async def test_a_judge_that_is_late_does_not_fail_the_run() -> None:
    async def hang(request: GenerationRequest) -> None:
        if ":judge:" in request.request_id:
            skip_time(DEADLINE_S)
            await asyncio.Event().wait()

    result, world = await judged(prefers_refined, pause=hang)
    assert result.status == "completed"
    assert result.improvement.reason == "no time was left for the judge"
    assert world.generator.aborted == ["run-1:judge:1"]


async def test_equal_answers_need_no_judge() -> None:
    def content(request: GenerationRequest) -> str:
        return "Right." if request.metadata["node"] == "challenger" else "the same"

    world = World(content, catalog=judging_catalog())
    flow = world.catalog.flows.get("challenge")
    result = await execute_flow(order(prompt="Why?"), flow, FlowGraphs(world.catalog), world.ports())
    assert (result.improvement.delta, len(world.generator.requests)) == (0.0, 2)


def test_who_judges() -> None:
    assert find_judge(PACKAGE) is None
    catalog = judging_catalog(judge="gemini-3.1-pro")
    chosen = [find_judge(catalog, authors) for authors in ([], ["gemini-3.1-pro"], ["claude-opus-5-5"])]
    assert [model.key for model in chosen if model] == ["gemini-3.1-pro", "claude-opus-5-5", "gemini-3.1-pro"]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("SCORES: A=4 B=8", (0.4, 0.8)),
        ("Well.\nscores: A = 7.5  B=10", (0.75, 1.0)),
        ("A=4 B=8", None),
        ("SCORES: A=11 B=1", None),
        ("", None),
    ],
)
def test_scores_are_read_or_not_at_all(text: str, scores: tuple[float, float] | None) -> None:
    assert read_scores(text) == scores
