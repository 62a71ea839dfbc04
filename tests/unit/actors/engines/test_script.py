from __future__ import annotations

import asyncio

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.script import FAULT_OF_KIND, FaultKind, Script, ScriptPlayer, tokens_of
from actors.engines.scripted import ScriptedEngine, load_script
from registries.contracts.engine import EngineCall
from registries.contracts.errors import CapacityError, Fault, ProviderError, ValidationError
from registries.contracts.generation import Message
from registries.specs import ModelSpec


def spec(**fields: object) -> ModelSpec:
    settings = {
        "key": "s",
        "family": "scripted",
        "provider": "scripted",
        "engine": "scripted",
        "location": "s",
        "context_window": 50,
        "default_strategy": "optimized",
    }
    return ModelSpec.model_validate({**settings, **fields})


def call(prompt: str, **options: object) -> EngineCall:
    return EngineCall("r", "s", (Message(role="user", content=prompt),), 20, **options)  # type: ignore[arg-type]


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


def test_every_kind_of_fault_has_a_class() -> None:
    assert set(FAULT_OF_KIND) == set(FaultKind.__args__)  # type: ignore[attr-defined]
    assert set(FAULT_OF_KIND.values()) == set(Fault)


def test_faults_are_spent_in_order_and_then_it_answers() -> None:
    faults = [{"kind": "timeout", "times": 2}, {"kind": "rate_limited", "retry_after_s": 3}]
    player = ScriptPlayer(Script.model_validate({"answers": [{"texts": ["ok"], "faults": faults}]}))
    kinds = [performance.fault_class for performance in (player.perform("x", None) for _ in range(5))]
    assert kinds == [Fault.TIMEOUT, Fault.TIMEOUT, Fault.RATE_LIMITED, None, None]
    assert player.calls == 5


def test_faults_of_one_rule_leave_the_others_alone() -> None:
    script = {"answers": [{"pattern": "a", "faults": [{"kind": "auth", "times": None}]}, {"texts": ["fine"]}]}
    player = ScriptPlayer(Script.model_validate(script))
    assert player.perform("a", None).fault_class is Fault.AUTH
    assert player.perform("b", None).tokens == ("fine",)
    assert player.perform("a", None).fault_class is Fault.AUTH


def test_seed_chooses_and_without_one_the_texts_take_turns() -> None:
    player = ScriptPlayer(Script.model_validate({"answers": [{"texts": ["a", "b"]}]}))
    assert [player.perform("x", 1).tokens for _ in range(3)] == [("b",)] * 3
    assert {player.perform("x", None).tokens for _ in range(2)} == {("a",), ("b",)}


@pytest.mark.parametrize(
    "bad",
    [
        {"answers": [{"pattern": "("}]},
        {"answers": [{"texts": []}]},
        {"answers": [{"latency_s": -1}]},
        {"answers": [{"faults": [{"kind": "explodes"}]}]},
        {"slots": 0},
        {"unknown": 1},
    ],
)
def test_a_wrong_script_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Script.model_validate(bad)
    with pytest.raises(ValidationError, match=r"model s: engine_options\.script is no script"):
        load_script(spec(engine_options={"script": bad}))


def test_a_script_in_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/script.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write("answers:\n  - texts: [from a file]\n")
    assert load_script(spec(location=path)).answers[0].texts == ("from a file",)
    with pytest.raises(ValidationError, match=r"gone\.yaml"):
        load_script(spec(location=f"{tmp_path}/gone.yaml"))


async def test_slots_make_the_rest_wait_and_a_new_script_plays_at_once() -> None:
    engine = ScriptedEngine(
        spec(), Script.model_validate({"slots": 1, "answers": [{"texts": ["x"], "latency_s": 30}]})
    )
    tasks = [asyncio.create_task(engine.complete(call("q", deadline_s=40.0))) for _ in range(3)]
    while engine.stats().waiting < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert engine.stats().running == 1
    assert engine.stats().kv_cache_use == 1.0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    engine.cast.load(Script(echo=True))
    assert (await engine.complete(call("again"))).text == "again"


async def test_shutdown_ends_what_runs_and_refuses_the_rest() -> None:
    engine = ScriptedEngine(spec(), Script.model_validate({"answers": [{"texts": ["x"], "latency_s": 30}]}))
    task = asyncio.create_task(engine.complete(call("q")))
    while engine.stats().running == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await engine.shutdown()
    with pytest.raises(Exception, match="was aborted"):
        await task
    with pytest.raises(CapacityError):
        await engine.complete(call("q"))
    with pytest.raises(ProviderError):
        await engine.check_health()
