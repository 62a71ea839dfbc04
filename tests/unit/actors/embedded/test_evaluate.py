"""How the embedded models are measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.embedded import evaluate
from actors.embedded.evaluate import accuracy_by_skill, held_out_lessons, is_right, record
from actors.embedded.lessons import SKILLS, Skill
from actors.embedded.recipes import Recipe
from actors.embedded.trainer import Trainer

TARGETS = {lesson.prompt: lesson.target for skill in SKILLS for lesson in held_out_lessons(skill)}


def _perfect(prompts: Sequence[str]) -> list[str]:
    return [TARGETS[prompt] for prompt in prompts]


@pytest.mark.parametrize("skill", SKILLS)
def test_one_lesson_per_held_out_question_and_skill(skill: Skill) -> None:
    lessons = held_out_lessons(skill)
    assert len({lesson.question for lesson in lessons}) == 500
    assert lessons == held_out_lessons(skill)


def test_perfect_answers_score_one_and_silence_zero() -> None:
    assert accuracy_by_skill(_perfect) == dict.fromkeys(SKILLS, 1.0)
    assert accuracy_by_skill(lambda prompts: [""] * len(prompts)) == dict.fromkeys(SKILLS, 0.0)


def test_a_critique_counts_by_its_verdict() -> None:
    lesson = held_out_lessons("criticise")[0]
    verdict = lesson.target.split()[-1]
    other = {"Right.": "Wrong.", "Wrong.": "Right."}[verdict]
    assert is_right(lesson, f"I get 1. {verdict}")
    assert not is_right(lesson, f"I get {lesson.question.result}. {other}")


def test_always_agreeing_is_right_about_half_the_time() -> None:
    scores = accuracy_by_skill(lambda prompts: ["I get 0. Right."] * len(prompts))
    assert 0.4 < scores["criticise"] < 0.6


def test_the_command_prints_an_accuracy_for_every_skill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(Recipe(32, 1, 32, 1, 1e-2, {"solve": 1}), seed=0, compiled=False).save(tmp_path)
    figures = tmp_path / "accuracy.json"
    evaluate.main(["--model-dir", str(tmp_path), "--threads", "1", "--record", str(figures)])
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == set(SKILLS)
    assert json.loads(figures.read_text(encoding="utf-8")) == {tmp_path.name: printed}


def test_recording_keeps_the_other_models_figures(tmp_path: Path) -> None:
    figures = tmp_path / "accuracy.json"
    for model_key, score in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        record(figures, model_key, {"solve": score})
    assert json.loads(figures.read_text(encoding="utf-8")) == {"a": {"solve": 0.3}, "b": {"solve": 0.2}}
