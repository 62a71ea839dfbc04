"""The 500 held-out questions: what no embedded model was trained on, and how well each one does.

``python -m actors.embedded.held_out --out FILE.jsonl`` writes the data set that the package carries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from actors.embedded.arithmetic import Category, Question, random_question_of

HELD_OUT_SEED = 20_500
# Products of two digits by one are few (900), so that a hundred of them is a ninth of all there are.
_COUNTS: dict[Category, int] = {"add": 200, "subtract": 200, "multiply": 100}
_SMALLEST_LARGE_OPERAND = 10


def held_out_questions() -> list[Question]:
    """The same 500 questions on every call and every machine, distinct up to the order of operands."""
    rng = Random(HELD_OUT_SEED)
    chosen: dict[tuple[Category, int, int], Question] = {}
    for category, count in _COUNTS.items():
        wanted = len(chosen) + count
        while len(chosen) < wanted:
            question = random_question_of(category, rng)
            if _is_large(question):
                chosen.setdefault(question.key, question)
    questions = list(chosen.values())
    rng.shuffle(questions)
    return questions


def _is_large(question: Question) -> bool:
    """Sums of two- and three-digit numbers, products with a two-digit number first."""
    smallest = question.a if question.category == "multiply" else min(question.a, question.b)
    return smallest >= _SMALLEST_LARGE_OPERAND


def dataset_lines() -> list[str]:
    """The data set as JSON lines: id, input, target (a string), metadata."""
    return [json.dumps(_row(number, question)) for number, question in enumerate(held_out_questions())]


def _row(number: int, question: Question) -> dict[str, object]:
    return {
        "id": f"arithmetic-{number:03d}",
        "input": question.text(),
        "target": str(question.result),
        "metadata": {"category": question.category, "a": question.a, "b": question.b},
    }


def main(arguments_given: Sequence[str] | None = None) -> None:
    """Write the data set to the file that ``--out`` names."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(arguments_given)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(f"{line}\n" for line in dataset_lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
