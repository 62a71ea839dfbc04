"""The held-out questions and their data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import registries
from actors.embedded import held_out
from actors.embedded.held_out import dataset_lines, held_out_questions

DATASET = Path(registries.__file__).parent / "data" / "datasets" / "arithmetic_heldout.jsonl"


def test_five_hundred_distinct_questions_in_three_categories() -> None:
    questions = held_out_questions()
    assert len({question.key for question in questions}) == 500
    counted = Counter(question.category for question in questions)
    assert counted == {"add": 200, "subtract": 200, "multiply": 100}


def test_every_call_gives_the_same_questions() -> None:
    assert held_out_questions() == held_out_questions()


def test_the_packaged_data_set_is_what_the_generator_makes() -> None:
    assert DATASET.read_text(encoding="utf-8").splitlines() == dataset_lines()


def test_rows_carry_the_result_as_a_string() -> None:
    for line, question in zip(dataset_lines(), held_out_questions(), strict=True):
        row = json.loads(line)
        assert set(row) == {"id", "input", "target", "metadata"}
        assert row["target"] == str(question.result)
        assert row["metadata"]["category"] == question.category


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "questions.jsonl"
    held_out.main(["--out", str(target)])
    assert target.read_text(encoding="utf-8").splitlines() == dataset_lines()


def test_the_command_needs_a_file_name() -> None:
    with pytest.raises(SystemExit):
        held_out.main([])
