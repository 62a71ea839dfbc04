"""Arithmetic questions and texts."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.embedded.arithmetic import (
    PHRASINGS,
    Question,
    criticise_prompt,
    critique_text,
    final_number,
    merge_prompt,
    mistaken_result,
    random_phrasing,
    random_question,
    random_question_of,
    repair_prompt,
)

seeds = st.integers(0, 2**32)
questions = seeds.map(lambda seed: random_question(Random(seed)))


def test_the_texts_of_the_four_skills() -> None:
    question = Question("add", 48, 37)
    assert question.text() == "What is 48 + 37?"
    assert question.answer() == "48 + 37 = 85"
    assert criticise_prompt(question.text(), "48 + 37 = 75") == (
        "Question: What is 48 + 37? Answer: 48 + 37 = 75 Check it."
    )
    assert critique_text(85, 75) == "I get 85. Wrong."
    assert critique_text(85, 85) == "I get 85. Right."
    assert repair_prompt(question.text(), "48 + 37 = 75", "I get 85. Wrong.") == (
        "Question: What is 48 + 37? Answer: 48 + 37 = 75 Critique: I get 85. Wrong. Fix it."
    )
    assert merge_prompt(question.text(), ["48 + 37 = 85", "48 + 37 = 75", "48 + 37 = 85"]) == (
        "Question: What is 48 + 37? Answers: 48 + 37 = 85 | 48 + 37 = 75 | 48 + 37 = 85 Merge them."
    )


@pytest.mark.parametrize(
    ("question", "result"),
    [(Question("add", 2, 3), 5), (Question("subtract", 2, 3), -1), (Question("multiply", 12, 3), 36)],
)
def test_results(question: Question, result: int) -> None:
    assert question.result == result


@given(questions)
def test_questions_stay_in_the_range_that_the_models_learn(question: Question) -> None:
    assert 0 <= question.a < 1000
    assert 0 <= question.b < 1000
    if question.category == "multiply":
        assert min(question.a, question.b) < 10


@given(seeds)
def test_a_category_asked_for_is_kept(seed: int) -> None:
    assert random_question_of("subtract", Random(seed)).category == "subtract"


@given(questions, seeds)
def test_a_mistaken_result_is_never_right(question: Question, seed: int) -> None:
    assert mistaken_result(question, Random(seed)) != question.result


@given(questions, seeds)
def test_the_result_is_read_back_from_answers_and_critiques(question: Question, seed: int) -> None:
    wrong = mistaken_result(question, Random(seed))
    assert final_number(question.answer()) == question.result
    assert final_number(question.answer(wrong)) == wrong
    assert final_number(critique_text(question.result, wrong)) == question.result


@pytest.mark.parametrize(
    ("text", "number"), [("", None), ("none", None), ("= -5", -5), ("I get 85. Wrong.", 85)]
)
def test_final_number(text: str, number: int | None) -> None:
    assert final_number(text) == number


@given(questions, st.sampled_from(PHRASINGS))
def test_every_wording_names_both_operands(question: Question, phrasing: str) -> None:
    text = question.text(phrasing)
    assert str(question.a) in text
    assert str(question.b) in text


@given(seeds)
def test_wording_shares_at_their_ends(seed: int) -> None:
    assert random_phrasing(Random(seed), 1.0) == PHRASINGS[0]
    assert random_phrasing(Random(seed), 0.0) in PHRASINGS[1:]


@given(seeds)
def test_the_same_seed_asks_the_same_question(seed: int) -> None:
    assert random_question(Random(seed)) == random_question(Random(seed))


@given(questions)
def test_swapped_operands_share_a_key(question: Question) -> None:
    assert Question(question.category, question.b, question.a).key == question.key
