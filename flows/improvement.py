"""Was the last answer better than the first? Measured by a checker or a fit judge, else honestly unknown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from flows.checkers import answer_checker
from flows.judge import find_judge, judge_pair
from flows.run_context import RunContext
from registries.contracts.errors import ParleyError
from registries.contracts.generation import Usage
from registries.contracts.runs import Improvement

NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Measured:
    """The improvement, and what measuring it cost."""

    improvement: Improvement
    usage: Usage = NOTHING


async def measure_improvement(run: RunContext, question: str, answer: str) -> Measured:
    """Compare the answer with the baseline node's first visit. Raises nothing but CancelledError."""
    first = baseline_text(run)
    if first is None:
        return _unknown("the flow has no first answer to compare with")
    if not answer.strip():
        return _unknown("there is no final answer")
    checker = answer_checker(question, run.order.request.target)
    if checker is not None:
        return Measured(_scored(checker(first), checker(answer), "checker"))
    return await _judged(run, question, first, answer)


def baseline_text(run: RunContext) -> str | None:
    """The first completed text of the baseline node."""
    name = run.flow.output.baseline
    texts = (result.text for result in run.results if result.id == name and result.status == "completed")
    return next(texts, None)


async def _judged(run: RunContext, question: str, first: str, answer: str) -> Measured:
    authors = {result.model_resolved for result in run.results if result.model_resolved}
    judge = find_judge(run.catalog, authors)
    if judge is None:
        return _unknown("no checker fits this question, and no enabled model has the judge capability")
    if first.strip() == answer.strip():
        return Measured(Improvement(delta=0.0, reason="first and final answer are the same"))
    left_s = run.order.deadline_s - run.elapsed_s()
    if left_s <= 0:
        return _unknown("no time was left for the judge")
    try:
        async with asyncio.timeout(left_s):
            verdict = await judge_pair(
                question, first, answer, judge, run.catalog, run.ports.generator, run.order.run_id, left_s
            )
    except TimeoutError:
        return _unknown("no time was left for the judge")
    except ParleyError as error:
        return _unknown(f"the judge {judge.key} failed: {error.message}")
    if verdict.first is None or verdict.final is None:
        return Measured(Improvement(reason=verdict.reason), verdict.usage)
    return Measured(_scored(verdict.first, verdict.final, "judge"), verdict.usage)


def _scored(first: float, final: float, method: str) -> Improvement:
    how = "checker" if method == "checker" else "judge"
    return Improvement(first_score=first, final_score=final, delta=final - first, method=how)


def _unknown(reason: str) -> Measured:
    return Measured(Improvement(reason=reason))
