"""Each node kind by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.node_task import NodeTask, Source
from flows.nodes import NODE_KINDS, register_node, run_payload
from flows.nodes.analyze import requirements_of, task_type_of
from flows.nodes.history import relevant_turns
from flows.nodes.synthesize import panel_texts
from flows.nodes.validate import score_form
from registries.catalog import Catalog
from registries.contracts.errors import Conflict, ValidationError
from registries.contracts.generation import Message
from registries.contracts.runs import NodeResult
from registries.specs import NodeSpec
from tests.unit.flows.fakes import PACKAGE, QUESTION, World


def task(kind: str, **values: Any) -> NodeTask:
    node = {"id": "one", "kind": kind, **values.pop("node", {})}
    defaults = {"run_id": "r", "request_id": "q", "flow": "f", "question": QUESTION, "deadline_s": 10}
    return NodeTask.model_validate({**defaults, "node": node, **values})


async def result_of(asked: NodeTask, world: World | None = None) -> NodeResult:
    world = world or World()
    return await run_payload(asked.model_dump(mode="json"), world.ports(), world.catalog)


@pytest.mark.parametrize(
    ("question", "task_type"),
    [
        (QUESTION, "arithmetic"),
        ("12*4", "arithmetic"),
        ("Write a Python function that adds", "code"),
        ("Translate this to German", "translation"),
        ("Summarize the text", "summarisation"),
        ("Classify this mail", "classification"),
        ("A haiku on rain", "creative"),
        ("Compare trains and planes", "analysis"),
        ("Who are you?", "general"),
        ("", "general"),
    ],
)
async def test_analyze_finds_the_task_type(question: str, task_type: str) -> None:
    assert task_type_of(question) == task_type


async def test_analyze_asks_for_history_only_inside_a_conversation() -> None:
    asked = {"question": "As I said before, why?"}
    assert not (await result_of(task("analyze", **asked))).data["requirements"]["history"]
    inside = await result_of(task("analyze", conversation_id="c", **asked))
    assert inside.data["requirements"]["history"]
    assert inside.text == "Task type: general. Needs: history."


def test_a_long_question_is_said_to_be_long() -> None:
    assert requirements_of("word " * 51)["long_context"]
    assert not requirements_of("word " * 50)["long_context"]


def needing(vram_gb: float) -> Catalog:
    models = [model.model_copy(update={"min_vram_gb": vram_gb}) for model in PACKAGE.models]
    return Catalog(models, PACKAGE.strategies, PACKAGE.prompts, PACKAGE.flows, PACKAGE.tiers)


@pytest.mark.parametrize(("available", "fits"), [(8.0, True), (4.0, True), (3.9, False), (None, False)])
async def test_monitor_compares_the_models_need_with_what_is_there(
    available: float | None, fits: bool
) -> None:
    world = World(catalog=needing(4.0))
    world.resources.available_gb = available
    result = await result_of(task("monitor", model="nano-m"), world)
    assert result.status == "completed"
    assert result.data["signals"] == (["fits"] if fits else [])
    assert result.data.get("available_vram_gb") == (None if available is None else min(available, 6.0))


async def test_monitor_is_skipped_without_looking_where_no_gpu_is_needed() -> None:
    world = World()
    result = await result_of(task("monitor"), world)
    assert (result.status, world.resources.asked) == ("skipped", 0)
    assert result.data["reason"] == "nano-m needs no GPU memory"


@pytest.mark.parametrize(
    ("answer", "task_type", "truncated", "score"),
    [
        ("85", "arithmetic", False, 1.0),
        ("", None, False, 0.0),
        (" \n", None, False, 0.0),
        ("eighty-five", "arithmetic", False, 0.2),
        (QUESTION, None, False, 0.4),
        ("The answer is", None, True, 0.6),
        ("I'm sorry, I cannot do that", None, False, 0.5),
        ("no " * 20, None, False, 0.5),
        ("I can't " * 20, "arithmetic", True, 0.0),
    ],
)
def test_the_form_of_an_answer_is_scored(
    answer: str, task_type: str | None, truncated: bool, score: float
) -> None:
    found, reasons = score_form(QUESTION, answer, task_type, truncated)
    assert found == pytest.approx(score)
    assert bool(reasons) == (score < 1)


@given(st.text(), st.text(), st.sampled_from([None, "arithmetic"]), st.booleans())
def test_a_score_is_always_a_share(question: str, answer: str, kind: str | None, truncated: bool) -> None:
    score, reasons = score_form(question, answer, kind, truncated)
    assert 0 <= score <= 1
    assert (score == 1) == (not reasons)


async def test_validate_without_anything_before_it_is_refused() -> None:
    result = await result_of(task("validate"))
    assert result.error is not None
    assert result.error.param == "nodes.one"


def turn(content: str) -> Message:
    return Message(role="user", content=content)


def test_turns_bear_on_a_question_by_numbers_and_longer_words() -> None:
    turns = [turn("I was born in 37"), turn("is it what"), turn("The What?"), turn("nothing else")]
    assert relevant_turns(QUESTION, turns) == [turns[0], turns[1], turns[2]]


async def test_history_is_skipped_where_nothing_bears() -> None:
    world = World()
    world.history.turns = [turn("rain")]
    result = await result_of(task("history", conversation_id="c", node={"params": {"limit": 5}}), world)
    assert (result.status, result.data["read"], world.history.reads) == ("skipped", 1, [("c", 5)])


def source(name: str, text: str, status: str = "completed") -> Source:
    return Source.model_validate({"id": name, "role": name, "status": status, "text": text})


def test_texts_for_a_panel_say_who_is_missing() -> None:
    texts = panel_texts([source("a_b", "x "), source("c", "y")], [source("d", "", "failed")])
    assert texts["answers"] == "x | y"
    assert texts["labelled_answers"] == "The expert for a b says:\nx\n\nThe expert for c says:\ny"
    assert texts["missing"] == "No answer came from: d. Say that this view is missing."
    assert panel_texts([source("a", "x")], [])["missing"] == ""


async def test_an_expert_with_an_empty_answer_counts_as_missing() -> None:
    asked = task(
        "synthesize",
        node={"prompt": "merge_views"},
        model="nano-m",
        sources=[source("a", "8"), source("b", " ")],
        variables={"input": QUESTION},
    )
    assert (await result_of(asked)).data["failed"] == ["b"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("Right.", "no_fault"), ("Wrong.", "fault"), ("Right. Wrong.", "unclear"), ("", "unclear")],
)
async def test_a_critique_has_one_verdict_or_is_unclear(text: str, verdict: str) -> None:
    asked = task(
        "critique",
        node={"prompt": "challenge"},
        model="nano-m",
        variables={"input": QUESTION, "answer": "84"},
    )
    assert (await result_of(asked, World(lambda request: text))).data["verdict"] == verdict


async def test_big_models_get_their_own_words_and_a_system_text() -> None:
    world = World()
    asked = task(
        "critique", node={"prompt": "challenge"}, model="gpt-5.6", variables={"input": "Q", "answer": "A"}
    )
    await result_of(asked, world)
    (request,) = world.generator.requests
    assert "VERDICT: NO FAULT" in request.prompt
    assert "look for faults" in (request.context.system or "")
    assert request.max_tokens is None


async def test_the_gateways_choice_decides_the_words() -> None:
    world = World(chosen="gpt-5.6")
    asked = task("generate", node={"prompt": "create"}, variables={"input": "Q"}, available_vram_gb=3.0)
    result = await result_of(asked, world)
    assert "Answer in full" in world.generator.prompts()[0]
    assert world.generator.requests[0].constraints.vram == 3.0
    assert result.model_resolved == "gpt-5.6"


async def test_a_node_limits_tokens_by_a_parameter() -> None:
    world = World()
    asked = task(
        "generate",
        node={"prompt": "create", "params": {"max_tokens": 5}},
        model="nano-m",
        variables={"input": "Q"},
    )
    await result_of(asked, world)
    assert world.generator.requests[0].max_tokens == 5


async def test_a_prompt_that_comes_out_empty_is_one_clear_error() -> None:
    asked = task("generate", node={"prompt": "create"}, model="nano-m", variables={"input": " "})
    result = await result_of(asked)
    assert result.error is not None
    assert result.error.message == "node 'one': prompt must not be empty (or give messages)"


async def test_no_time_left_is_a_budget_error() -> None:
    world = World()
    world.clock.tick_s = 20
    asked = task("generate", node={"prompt": "create"}, model="nano-m", variables={"input": "Q"})
    result = await result_of(asked, world)
    assert result.error is not None
    assert result.error.code == "budget_exceeded"


async def test_an_unknown_kind_is_a_failed_node() -> None:
    result = await result_of(task("dream"))
    assert result.error is not None
    assert "Known: analyze, approve, critique" in result.error.message


async def test_a_payload_that_is_no_task_is_refused() -> None:
    with pytest.raises(ValidationError, match="no node task"):
        await run_payload({"node": 3}, World().ports(), PACKAGE)


async def test_a_kind_of_ones_own_is_one_call_away() -> None:
    name = "shout_for_test"

    async def shout(context: Any) -> Any:
        from flows.node_context import NodeOutcome

        return NodeOutcome(context.task.question.upper(), {"signals": ["loud"]})

    register_node(name, shout, signals=frozenset({"loud"}))
    try:
        assert (await result_of(task(name))).text == QUESTION.upper()
        with pytest.raises(Conflict, match="registered twice"):
            register_node(name, shout)
    finally:
        del NODE_KINDS[name]


def test_the_time_of_a_node_is_bounded_by_its_own_limit() -> None:
    from flows.node_context import NodeContext

    world = World()
    limited = task("generate", node={"timeout_s": 3})
    assert NodeContext(limited, world.ports(), PACKAGE, world.clock.now).remaining_s() == 3
    assert isinstance(limited.node, NodeSpec)
    assert limited.call_id == "r:one:1"
