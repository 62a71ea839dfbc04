"""The shipped declarations agree with each other, and with what the embedded models were taught."""

from __future__ import annotations

from random import Random

import pytest

from actors.embedded.arithmetic import (
    PHRASINGS,
    criticise_prompt,
    critique_text,
    merge_prompt,
    random_question,
    repair_prompt,
)
from flows.asking import signals_in
from flows.prompting import render_prompt
from flows.validation import validate_flow
from registries.loader import load_catalog

CATALOG = load_catalog()
QUESTION, ANSWER, CRITIQUE = "What is 48 + 37?", "48 + 37 = 84", "I get 85. Wrong."


def nano(prompt_id: str, **values: str) -> str:
    return render_prompt(CATALOG.prompt(prompt_id, "nano"), values).text


@pytest.mark.parametrize("flow", CATALOG.flows.names())
def test_every_flow_can_run(flow: str) -> None:
    assert validate_flow(CATALOG.flows.get(flow), CATALOG) == []


def test_nano_prompts_are_the_words_of_the_lessons() -> None:
    assert nano("create", input=QUESTION) == QUESTION
    assert nano("answer", input=QUESTION) == QUESTION
    assert nano("expert_view", input=QUESTION, domain="x", focus="y") == QUESTION
    assert nano("challenge", input=QUESTION, answer=ANSWER) == criticise_prompt(QUESTION, ANSWER)
    repaired = nano("refine", input=QUESTION, answer=ANSWER, challenger_output=CRITIQUE)
    assert repaired == repair_prompt(QUESTION, ANSWER, CRITIQUE)
    merged = nano("merge_views", input=QUESTION, answers="a | b | c", labelled_answers="", missing="")
    assert merged == merge_prompt(QUESTION, ["a", "b", "c"])


@pytest.mark.parametrize(("own", "verdict"), [(85, "no_fault"), (84, "fault")])
def test_signals_of_a_nano_critique(own: int, verdict: str) -> None:
    signals = CATALOG.prompt("challenge", "nano").signals
    assert signals_in(critique_text(own, 85), signals) == (verdict,)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It holds.\n\nVERDICT: NO FAULT", ("no_fault",)),
        ("**Verdict: no fault**", ("no_fault",)),
        ("1. wrong sum\nVERDICT: FAULT", ("fault",)),
        ("I would say VERDICT: FAULT is too hard", ()),
        ("no verdict at all", ()),
    ],
)
def test_signals_of_a_big_model(text: str, verdict: tuple[str, ...]) -> None:
    assert signals_in(text, CATALOG.prompt("challenge", "gpt").signals) == verdict


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_the_scope_covers_what_the_models_can_do(phrasing: str) -> None:
    scope = CATALOG.get_model("nano-m").scope
    assert scope is not None
    rng = Random(7)
    for _ in range(600):
        question = random_question(rng)
        assert scope.covers(question.text(phrasing)), question.text(phrasing)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "What is love?",
        "What is 4 + 3 + 2?",
        "What is 1000 + 1?",
        "What is 48 + 37? And why?",
        "12 / 4",
        "7 * 123",
    ],
)
def test_the_scope_leaves_the_rest_out(question: str) -> None:
    scope = CATALOG.get_model("nano-s").scope
    assert scope is not None
    assert not scope.covers(question)


def test_default_roles_mix_both_embedded_models() -> None:
    for name in ("challenge", "multi_perspective"):
        models = {CATALOG.model_for(node.model).key for node in CATALOG.flows.get(name).nodes if node.model}
        assert models == {"nano-m", "nano-s"}


def test_remote_models_are_off_and_their_prices_unknown() -> None:
    remote = [model for model in CATALOG.models if model.engine == "litellm"]
    assert len(remote) == 9
    for model in remote:
        assert not model.enabled
        assert model.api_key_env
        assert model.cost_profile.prompt_usd_per_mtok is None
