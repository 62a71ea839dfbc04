"""The embedded models' tokenizer."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from actors.embedded.lessons import SKILLS, Skill, random_lesson
from actors.embedded.vocabulary import ASSISTANT, END, PAD, USER, build_tokenizer

SPECIALS = (PAD, END, USER, ASSISTANT)
TOKENIZER = build_tokenizer()


def _encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@given(st.text())
def test_any_text_comes_back_unchanged(text: str) -> None:
    assert TOKENIZER.decode(_encode(text)) == text


@given(st.sampled_from(SKILLS), st.integers(0, 2**32))
def test_lessons_are_short_and_come_back_unchanged(skill: Skill, seed: int) -> None:
    lesson = random_lesson(skill, Random(seed), ())
    for text in (lesson.prompt, lesson.target):
        tokens = _encode(text)
        assert len(tokens) < 100
        assert TOKENIZER.decode(tokens) == text


@given(st.text(alphabet="Wh é世🎉? 12=+|.", max_size=30))
def test_streamed_pieces_join_to_the_whole_text(text: str) -> None:
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    pieces = [stream.step(TOKENIZER.backend_tokenizer, token) for token in _encode(text)]
    assert "".join(piece for piece in pieces if piece) == text


@pytest.mark.parametrize(
    ("messages", "rendered"),
    [
        ([{"role": "user", "content": " What is 1 + 1?\n"}], f"{USER}What is 1 + 1?{ASSISTANT}"),
        ([{"role": "user", "content": "what's 1 + 1?"}], f"{USER}What is 1 + 1?{ASSISTANT}"),
        (
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1 + 1"}],
            f"{USER}1 + 1{ASSISTANT}",
        ),
        (
            [
                {"role": "user", "content": "1 + 1"},
                {"role": "assistant", "content": "1 + 1 = 2"},
                {"role": "user", "content": "2 + 2"},
            ],
            f"{USER}1 + 1{ASSISTANT}1 + 1 = 2{END}{USER}2 + 2{ASSISTANT}",
        ),
    ],
)
def test_the_chat_template(messages: list[dict[str, str]], rendered: str) -> None:
    assert TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == rendered


def test_special_tokens_are_single_and_left_out_of_decoded_answers() -> None:
    for special in SPECIALS:
        assert len(_encode(special)) == 1
    assert TOKENIZER.decode(_encode(f"85{END}"), skip_special_tokens=True) == "85"


def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "What is 48 + 37?"}]
    assert loaded.apply_chat_template(messages, tokenize=False) == TOKENIZER.apply_chat_template(
        messages, tokenize=False
    )
    assert (loaded.eos_token, loaded.pad_token, loaded.padding_side) == (END, PAD, "left")
    assert loaded("What is 48 + 37?")["input_ids"] == _encode("What is 48 + 37?")
