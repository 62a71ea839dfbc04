"""Lessons: what the embedded models are trained on."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from actors.embedded.arithmetic import final_number
from actors.embedded.held_out import held_out_questions
from actors.embedded.lessons import SKILLS, Lesson, Skill, lesson_on, random_lesson

HELD_OUT = frozenset(question.key for question in held_out_questions())
seeds = st.integers(0, 2**32)
skills = st.sampled_from(SKILLS)


@given(skills, seeds)
def test_no_lesson_touches_held_out_operands(skill: Skill, seed: int) -> None:
    assert random_lesson(skill, Random(seed), HELD_OUT).question.key not in HELD_OUT


@given(skills, seeds)
def test_the_target_is_the_truth(skill: Skill, seed: int) -> None:
    lesson = random_lesson(skill, Random(seed), HELD_OUT)
    assert final_number(lesson.target) == lesson.question.result


@given(seeds)
def test_a_verdict_is_right_exactly_when_the_answer_is(seed: int) -> None:
    lesson = random_lesson("criticise", Random(seed), HELD_OUT)
    assert lesson.target.endswith("Right.") == (_answered(lesson) == lesson.question.result)


@given(skills, seeds)
def test_the_same_seed_gives_the_same_lesson(skill: Skill, seed: int) -> None:
    assert random_lesson(skill, Random(seed), HELD_OUT) == random_lesson(skill, Random(seed), HELD_OUT)


def test_half_of_the_answers_to_criticise_are_wrong() -> None:
    rng = Random(1)
    lessons = [lesson_on(question, "criticise", rng) for question in held_out_questions()]
    wrong = sum(lesson.target.endswith("Wrong.") for lesson in lessons)
    assert 0.4 < wrong / len(lessons) < 0.6


def test_some_critiques_to_repair_by_are_mistaken() -> None:
    lessons = _many("repair")
    mistaken = sum(f"I get {lesson.question.result}." not in lesson.prompt for lesson in lessons)
    assert 0.1 < mistaken / len(lessons) < 0.4


def test_two_to_four_answers_are_merged() -> None:
    assert {lesson.prompt.count(" | ") for lesson in _many("merge")} == {1, 2, 3}


def test_a_lesson_on_a_given_question_words_it_as_usual() -> None:
    question = held_out_questions()[0]
    lesson = lesson_on(question, "solve", Random(0))
    assert (lesson.prompt, lesson.target) == (question.text(), question.answer())


def _many(skill: Skill) -> list[Lesson]:
    rng = Random(1)
    return [random_lesson(skill, rng, HELD_OUT) for _ in range(1000)]


def _answered(lesson: Lesson) -> int | None:
    return final_number(lesson.prompt.removesuffix(" Check it."))
