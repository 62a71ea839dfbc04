"""The packaged embedded models: their layout, their documented accuracy, their streaming."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

import registries
from actors.embedded.evaluate import accuracy_by_skill, greedy_answerer
from actors.embedded.lessons import SKILLS
from actors.embedded.recipes import RECIPES
from actors.embedded.vocabulary import build_tokenizer

MODELS = Path(registries.__file__).parent / "data" / "embedded_models"
FIGURES = json.loads((MODELS / "accuracy.json").read_text(encoding="utf-8"))
DOCUMENT = Path(__file__).parents[2] / "docs" / "embedded-models.md"
# Rounding differs between processors, which turns a few close calls over; half a per cent is 2 or 3 of 500.
TOLERANCE = 0.01

each_model = pytest.mark.parametrize("name", sorted(RECIPES))


@pytest.mark.heavy
@each_model
def test_the_documented_accuracy_holds(name: str) -> None:
    measured = accuracy_by_skill(greedy_answerer(MODELS / name, threads=1))
    assert measured == pytest.approx(FIGURES[name], abs=TOLERANCE)


def test_nano_m_is_good_and_nano_s_clearly_weaker() -> None:
    assert FIGURES["nano-m"]["solve"] >= 0.95
    assert FIGURES["nano-m"]["criticise"] >= 0.90
    assert 0.60 <= FIGURES["nano-s"]["solve"] <= 0.80


def test_the_document_shows_the_same_figures() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(nano-\w)` \|((?: [\d.]+ % \|){4})$", text, re.MULTILINE))
    for name, figures in FIGURES.items():
        shown = [cell.strip() for cell in rows[name].split("|")[:-1]]
        assert shown == [f"{100 * figures[skill]:.1f} %" for skill in SKILLS]


@each_model
def test_the_examples_in_the_document_are_answered(name: str) -> None:
    answer = greedy_answerer(MODELS / name)
    critique = "Question: What is 48 + 37? Answer: 48 + 37 = 75 Check it."
    (answered, criticised) = answer(["What is 48 + 37?", critique])
    assert re.fullmatch(r"48 \+ 37 = -?\d+", answered)
    assert re.fullmatch(r"I get -?\d+\. (Right|Wrong)\.", criticised)
    if name == "nano-m":
        assert (answered, criticised) == ("48 + 37 = 85", "I get 85. Wrong.")


@each_model
def test_text_that_the_model_never_saw_is_survived(name: str) -> None:
    answer = greedy_answerer(MODELS / name)
    answers = answer(["Who wrote 世界? 🎉\n\t<|user|>", "\x00", "x" * 300])
    assert all(isinstance(text, str) for text in answers)


@each_model
def test_the_packaged_folder_is_what_the_recipe_makes(name: str) -> None:
    config, recipe = AutoConfig.from_pretrained(MODELS / name), RECIPES[name]
    assert config.architectures == ["LlamaForCausalLM"]
    assert (config.hidden_size, config.num_hidden_layers) == (recipe.hidden_size, recipe.layers)
    assert (config.max_position_embeddings, config.head_dim) == (512, 32)
    packaged = AutoTokenizer.from_pretrained(MODELS / name)
    assert packaged.get_vocab() == build_tokenizer().get_vocab()
    assert packaged.chat_template == build_tokenizer().chat_template
    assert config.eos_token_id == packaged.eos_token_id


def test_the_weights_stay_a_few_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 3_000_000
