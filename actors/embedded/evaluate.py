"""Accuracy per skill on the held-out questions: ``python -m actors.embedded.evaluate --model-dir DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from actors.embedded.arithmetic import final_number
from actors.embedded.held_out import held_out_questions
from actors.embedded.lessons import SKILLS, Lesson, Skill, lesson_on

Answerer = Callable[[Sequence[str]], list[str]]
"""User messages to the model's answers, in order."""

_MAX_NEW_TOKENS = 32
_BATCH = 128
# Chooses the mistakes in the prompts of criticise, repair and merge; apart from the seeds of training.
_LESSON_SEED = 4_242


def held_out_lessons(skill: Skill) -> list[Lesson]:
    """One lesson per held-out question, the same on every call."""
    rng = Random(_LESSON_SEED + SKILLS.index(skill))
    return [lesson_on(question, skill, rng) for question in held_out_questions()]


def is_right(lesson: Lesson, answer: str) -> bool:
    """A critique counts by its verdict alone, every other answer by its final number."""
    if lesson.skill == "criticise":
        return answer.split()[-1:] == lesson.target.split()[-1:]
    return final_number(answer) == lesson.question.result


def accuracy_by_skill(answerer: Answerer) -> dict[Skill, float]:
    """Share of right answers, by skill, to three decimals."""
    return {skill: _accuracy(answerer, held_out_lessons(skill)) for skill in SKILLS}


def greedy_answerer(folder: Path, dtype: str = "float32", threads: int | None = None) -> Answerer:
    """The model in ``folder`` run by transformers, batched and greedy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if threads is not None:
        torch.set_num_threads(threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=dtype).eval()

    def answer_batch(messages: Sequence[str]) -> list[str]:
        inputs = tokenizer.apply_chat_template(
            [[{"role": "user", "content": message}] for message in messages],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        return list(
            tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        )

    def answer_all(messages: Sequence[str]) -> list[str]:
        batches = (messages[start : start + _BATCH] for start in range(0, len(messages), _BATCH))
        return [answer for batch in batches for answer in answer_batch(batch)]

    return answer_all


def record(file: Path, model_key: str, scores: Mapping[Skill, float]) -> None:
    """Put a model's figures into the JSON file of all models' figures, in place of earlier ones."""
    figures = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    figures[model_key] = dict(scores)
    file.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _accuracy(answerer: Answerer, lessons: Sequence[Lesson]) -> float:
    answers = answerer([lesson.prompt for lesson in lessons])
    right = sum(is_right(lesson, answer) for lesson, answer in zip(lessons, answers, strict=True))
    return round(right / len(lessons), 3)


def main(arguments_given: Sequence[str] | None = None) -> None:
    """Print a model's accuracy per skill on the 500 held-out questions, as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", type=Path, help="JSON file that keeps every model's figures")
    arguments = parser.parse_args(arguments_given)
    answerer = greedy_answerer(arguments.model_dir, arguments.dtype, arguments.threads)
    scores = accuracy_by_skill(answerer)
    print(json.dumps(scores, indent=2))
    if arguments.record is not None:
        record(arguments.record, arguments.model_dir.resolve().name, scores)


if __name__ == "__main__":
    main()
