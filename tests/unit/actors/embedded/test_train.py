"""The training loop, on a model far smaller than the smallest recipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.embedded import train as train_module
from actors.embedded.arithmetic import Question
from actors.embedded.lessons import Lesson
from actors.embedded.recipes import RECIPES, Recipe
from actors.embedded.train import train
from actors.embedded.trainer import Trainer, learning_rate_share

TINY = Recipe(
    hidden_size=32,
    layers=1,
    intermediate_size=32,
    steps=4,
    peak_learning_rate=1e-2,
    lessons_per_step={"solve": 4, "criticise": 2, "repair": 2, "merge": 2},
)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(TINY, seed=0, compiled=False)


def test_only_the_answer_and_its_end_are_to_be_predicted(trainer: Trainer) -> None:
    question = Question("add", 1, 2)
    lessons = [
        Lesson("solve", "What is 1 + 2?", "1 + 2 = 3", question),
        Lesson("solve", "1 + 2", "3", question),
    ]
    batch = trainer.batch(lessons)
    answers = [
        trainer.tokenizer.decode(row[marked]) for row, marked in zip(batch.tokens, batch.answers, strict=True)
    ]
    assert answers == ["1 + 2 = 3<|end|>", "3<|end|>"]


def test_a_run_saves_a_model_that_loads(trainer: Trainer, tmp_path: Path) -> None:
    lines: list[str] = []
    train(trainer, tmp_path, None, lines.append)
    assert re.search(r"step 4 of 4, .* validation: solve \d", lines[-1])
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(tmp_path).eos_token_id
    assert model.config.max_position_embeddings == 512
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000


def test_training_is_taken_up_from_saved_weights(trainer: Trainer, tmp_path: Path) -> None:
    lines: list[str] = []
    train(trainer, tmp_path, None, lines.append)
    continued = Trainer(TINY, seed=1, compiled=False, start_from=tmp_path)
    saved, loaded = trainer.average.state_dict(), continued.model.state_dict()
    assert all(torch.allclose(loaded[name], saved[name], atol=0.01) for name in saved)
    train(continued, tmp_path, None, lines.append, start_at=0.5)
    assert "step 2 of 4" in lines[-1]


def test_the_verdict_counts_for_more_than_the_rest(trainer: Trainer) -> None:
    batch = trainer.batch([Lesson("criticise", "1 + 2", "I get 3. Right.", Question("add", 1, 2))])
    assert trainer.tokenizer.decode(batch.tokens[batch.weights > 1]) == ". Right."


def test_the_same_seed_trains_the_same_weights() -> None:
    losses = [[Trainer(TINY, seed=3, compiled=False).step(0, 0.5)] for _ in range(2)]
    assert losses[0] == losses[1]


def test_a_step_learns(trainer: Trainer) -> None:
    before = trainer.model.model.embed_tokens.weight.detach().clone()
    trainer.step(0, 0.5)
    assert not torch.equal(before, trainer.model.model.embed_tokens.weight)


def test_a_time_limit_ends_the_run_early(tmp_path: Path) -> None:
    endless = Recipe(32, 1, 32, 10**9, 1e-2, {"solve": 2})
    lines: list[str] = []
    train(Trainer(endless, seed=0, compiled=False), tmp_path, 0.002, lines.append)
    assert len(lines) >= 1


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    assert learning_rate_share(0, 0.0) < 0.01
    assert learning_rate_share(1000, 0.0) == 1.0
    assert learning_rate_share(1000, 1.0) == 0.0


@pytest.mark.parametrize(("name", "low", "high"), [("nano-m", 0.8e6, 1.2e6), ("nano-s", 0.08e6, 0.15e6)])
def test_the_recipes_have_about_the_parameters_that_the_docs_name(name: str, low: float, high: float) -> None:
    model = Trainer(RECIPES[name], seed=0, compiled=False).model
    assert low < sum(parameter.numel() for parameter in model.parameters()) < high


def test_the_first_lessons_are_short_ones() -> None:
    recipe = RECIPES["nano-m"]
    assert "merge" not in recipe.lessons_at(0.0)
    assert recipe.lessons_at(0.5) == recipe.lessons_per_step


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_module.main(["--model", "nano-x", "--out", "unused"])
    assert "nano-x" in capsys.readouterr().err
