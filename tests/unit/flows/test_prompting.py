"""Prompts are filled in once; hostile text stays text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.prompting import render_prompt, render_text
from registries.catalog import ResolvedPrompt
from registries.contracts.errors import ValidationError

names = st.sampled_from(["input", "answer", "creator_output", "other"])
hostile = st.text() | st.sampled_from(
    [
        "{{answer}}",
        "{{ input }}",
        "{{{{input}}}}",
        "{0}",
        "{input}",
        "%s",
        "${x}",
        "{% if 1 %}",
        "\\1",
        "\\g<0>",
    ]
)
pieces = st.lists(st.tuples(st.text(alphabet=st.characters(exclude_characters="{}")), names), max_size=6)


def prompt(text: str, *inputs: str, system: str | None = None) -> ResolvedPrompt:
    return ResolvedPrompt("p", 1, inputs, system, text, {}, None)


@given(pieces, st.dictionaries(names, hostile | st.builds(lambda a, b: a + b, hostile, hostile)))
def test_every_place_gets_its_value_and_nothing_is_expanded_twice(
    parts: list[tuple[str, str]], values: dict[str, str]
) -> None:
    filled = {name: values.get(name, "") for name in ("input", "answer", "creator_output", "other")}
    template = "".join(f"{text}{{{{{name}}}}}" for text, name in parts)
    assert render_text(template, filled) == "".join(f"{text}{filled[name]}" for text, name in parts)


@given(hostile)
def test_text_without_places_is_untouched(text: str) -> None:
    if "{{" not in text:
        assert render_text(text, {}) == text


def test_system_and_text_are_both_filled_in() -> None:
    words = render_prompt(prompt("Q: {{input}}", "input", system="Be {{ input }}"), {"input": "brief"})
    assert (words.system, words.text) == ("Be brief", "Q: brief")


@pytest.mark.parametrize(
    ("values", "words"),
    [({}, "'input' is missing"), ({"input": None}, "is missing"), ({"input": 3}, "of type int, not text")],
)
def test_inputs_are_there_and_are_text(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        render_prompt(prompt("{{input}}", "input"), values)
    assert caught.value.param == "prompts.p.input"


def test_a_declared_input_that_no_place_uses_must_be_there_too() -> None:
    with pytest.raises(ValidationError):
        render_prompt(prompt("plain", "input"), {})
