"""A model grades the first and the last answer, twice with the order swapped: judges favour a place."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from flows.ports import Generator
from flows.prompting import render_prompt
from registries.catalog import Catalog
from registries.contracts.generation import Context, GenerationRequest, Usage
from registries.specs import ModelSpec

JUDGE_PROMPT = "judge_pair"
_SCORES = re.compile(r"SCORES:\s*A\s*=\s*(\d+(?:\.\d+)?)\s+B\s*=\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_TOP = 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """Scores in [0, 1], or the reason why there are none; ``usage`` is what asking cost."""

    first: float | None
    final: float | None
    reason: str | None
    usage: Usage


def find_judge(catalog: Catalog, authors: Collection[str] = ()) -> ModelSpec | None:
    """An enabled model with the judge capability: rather no author, then the tier "judge", then quality."""
    wanted = catalog.tiers.get("judge")
    able = [model for model in catalog.list_models() if model.has("judge")]
    return max(able, key=lambda m: (m.key not in authors, m.key == wanted, m.quality), default=None)


async def judge_pair(
    question: str,
    first: str,
    final: str,
    judge: ModelSpec,
    catalog: Catalog,
    generator: Generator,
    call_id: str,
    deadline_s: float,
) -> Judgement:
    """Grade both answers in both orders. A judge that changes its mind with the order has no opinion.

    Errors: those of the generator. Cancelling aborts the call.
    """
    usage, grades = Usage(), []
    for turn, (a, b) in enumerate(((first, final), (final, first))):
        prompt = catalog.prompt(JUDGE_PROMPT, judge.family)
        words = render_prompt(prompt, {"input": question, "first": a, "second": b})
        answer = await generator.generate(
            GenerationRequest(
                prompt=words.text,
                model_key=judge.key,
                temperature=0.0,
                max_tokens=prompt.max_tokens,
                context=Context(system=words.system),
                request_id=f"{call_id}:judge:{turn + 1}",
                deadline_s=deadline_s,
            )
        )
        usage += answer.usage
        grade = read_scores(answer.text)
        if grade is None:
            return Judgement(None, None, f"the judge {judge.key} gave no scores", usage)
        grades.append(grade)
    (first_a, final_b), (final_a, first_b) = grades
    if (final_b - first_a) * (final_a - first_b) < 0:
        reason = f"the judge {judge.key} changed its mind when the order was swapped"
        return Judgement(None, None, reason, usage)
    return Judgement((first_a + first_b) / 2, (final_a + final_b) / 2, None, usage)


def read_scores(text: str) -> tuple[float, float] | None:
    """Scores of A and B in [0, 1] from the judge's words; None where they are missing or out of range."""
    found = _SCORES.search(text)
    if found is None:
        return None
    a, b = float(found[1]) / _TOP, float(found[2]) / _TOP
    return (a, b) if max(a, b) <= 1 else None
