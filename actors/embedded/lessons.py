"""Training and test lessons: one user message and the answer wanted, per skill.

Pure and seeded like ``arithmetic``. A lesson's target is always the truth; what varies is how often
the answers and critiques in its prompt are mistaken, so that a model does not obey them blindly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal

from actors.embedded.arithmetic import (
    Category,
    Question,
    criticise_prompt,
    critique_text,
    merge_prompt,
    mistaken_result,
    random_phrasing,
    random_question,
    repair_prompt,
)

Skill = Literal["solve", "criticise", "repair", "merge"]
SKILLS: tuple[Skill, ...] = ("solve", "criticise", "repair", "merge")

# Shares of mistakes inside prompts. A repair follows a critique that found a fault, so the answer is
# mostly wrong there; critiques are mistaken about as often as a good challenger is, and then some.
_WRONG_ANSWER_TO_CRITICISE = 0.5
# With half of the answers right, copying the answer as the own result pays too well to be unlearnt.
_WRONG_ANSWER_TO_CRITICISE_IN_TRAINING = 0.65
_WRONG_ANSWER_TO_REPAIR = 0.7
_WRONG_CRITIQUE = 0.2
_WRONG_ANSWER_TO_MERGE = 0.35
_SHARED_MISTAKE = 0.25
_PLAIN_SOLVE_SHARE = 0.8
_PLAIN_REVIEW_SHARE = 0.92


@dataclass(frozen=True, slots=True)
class Lesson:
    """One user message and the assistant's answer to it."""

    skill: Skill
    prompt: str
    target: str
    question: Question


def unseen_question(rng: Random, held_out: Collection[tuple[Category, int, int]]) -> Question:
    """A random question whose operands are not among the held-out ones, in either order."""
    while True:
        question = random_question(rng)
        if question.key not in held_out:
            return question


def random_lesson(skill: Skill, rng: Random, held_out: Collection[tuple[Category, int, int]]) -> Lesson:
    """A training lesson on a question outside ``held_out``."""
    question = unseen_question(rng, held_out)
    plain_share = _PLAIN_SOLVE_SHARE if skill == "solve" else _PLAIN_REVIEW_SHARE
    text = question.text(random_phrasing(rng, plain_share))
    return lesson_on(question, skill, rng, text, _WRONG_ANSWER_TO_CRITICISE_IN_TRAINING)


def lesson_on(
    question: Question,
    skill: Skill,
    rng: Random,
    text: str | None = None,
    wrong_to_criticise: float = _WRONG_ANSWER_TO_CRITICISE,
) -> Lesson:
    """A lesson on the given question, worded as ``text`` (by default the usual wording)."""
    text = question.text() if text is None else text
    if skill == "solve":
        return Lesson(skill, text, question.answer(), question)
    if skill == "criticise":
        answered = _perhaps_wrong(question, rng, wrong_to_criticise)
        prompt = criticise_prompt(text, question.answer(answered))
        return Lesson(skill, prompt, critique_text(question.result, answered), question)
    if skill == "repair":
        answered = _perhaps_wrong(question, rng, _WRONG_ANSWER_TO_REPAIR)
        critique = critique_text(_perhaps_wrong(question, rng, _WRONG_CRITIQUE), answered)
        return Lesson(
            skill, repair_prompt(text, question.answer(answered), critique), question.answer(), question
        )
    return Lesson(skill, merge_prompt(text, _several_answers(question, rng)), question.answer(), question)


def _perhaps_wrong(question: Question, rng: Random, wrong_share: float) -> int:
    return mistaken_result(question, rng) if rng.random() < wrong_share else question.result


def _several_answers(question: Question, rng: Random) -> list[str]:
    """Two to four answers, mostly three; now and then two of them share one mistake."""
    (count,) = rng.choices((2, 3, 4), (10, 80, 10))
    results = [_perhaps_wrong(question, rng, _WRONG_ANSWER_TO_MERGE) for _ in range(count)]
    wrong = [result for result in results if result != question.result]
    if len(wrong) > 1 and rng.random() < _SHARED_MISTAKE:
        results = [wrong[0] if result in wrong else result for result in results]
    return [question.answer(result) for result in results]
