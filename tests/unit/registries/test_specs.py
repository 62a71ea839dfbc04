"""Specs: versions and what validators refuse."""

from __future__ import annotations

import pickle

import pydantic
import pytest

from registries.loader import load_catalog
from registries.specs import ModelSpec, PromptSpec, Scope

FLOW = load_catalog().flows.get("challenge")


def test_a_flows_version_is_its_content() -> None:
    same = FLOW.model_validate(FLOW.model_dump())
    assert len(FLOW.version) == 16
    assert same.version == FLOW.version
    assert same == FLOW
    assert "version" not in FLOW.model_dump()
    assert pickle.loads(pickle.dumps(FLOW)).version == FLOW.version


def test_a_copy_has_a_version_of_its_own() -> None:
    assert FLOW.version != FLOW.model_copy(update={"description": "other"}).version
    assert FLOW.version == FLOW.model_copy().version


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"key": "a b"}, "must match"),
        ({"engine": "openai_compatible"}, "needs base_url"),
        ({"base_url": "localhost:8000/v1"}, "must be http://HOST:PORT/PATH"),
        ({"base_url": "http://"}, "must be http://HOST:PORT/PATH"),
        ({"base_url": "ftp://h/v1"}, "must be http://HOST:PORT/PATH"),
        ({"base_url": "http://h x/v1"}, "must be http://HOST:PORT/PATH"),
        ({"base_url": "http://h:99999"}, "is no URL with a host and a port from 0 to 65535"),
        ({"base_url": "http://a..b/v1"}, "is no URL"),
        ({"base_url": f"http://{70 * 'a'}/v1"}, "is no URL"),
        ({"base_url": "http://[::1/v1"}, "is no URL"),
        ({"base_url": "http://me:secret@h/v1"}, "must not hold a user or password.*api_key_env"),
        ({"base_url": "http://@h/v1"}, "must not hold a user or password"),
        ({"scope": {"description": "x", "pattern": "("}}, "is not a regular expression"),
        ({"scaling": {"min_replicas": 0}}, "at least 1, got 0: a model does not come back"),
        ({"quality": 2}, "less than or equal to 1"),
    ],
)
def test_a_bad_model_says_why(values: dict[str, object], words: str) -> None:
    good = {
        "key": "m",
        "family": "f",
        "provider": "p",
        "engine": "litellm",
        "location": "l",
        "context_window": 100,
        "default_strategy": "s",
    }
    ModelSpec.model_validate(good)
    with pytest.raises(pydantic.ValidationError, match=words):
        ModelSpec.model_validate({**good, **values})


@pytest.mark.parametrize(
    ("engine", "base_url", "local"),
    [
        ("vllm", None, True),
        ("transformers", None, True),
        ("scripted", None, True),
        ("scripted", "http://x", False),
        ("openai_compatible", "http://x", False),
        ("litellm", None, False),
    ],
)
def test_which_models_live_in_the_cluster(engine: str, base_url: str | None, local: bool) -> None:
    values = load_catalog().get_model("nano-m").model_dump() | {"engine": engine, "base_url": base_url}
    assert ModelSpec.model_validate(values).is_local is local


def test_a_signal_must_have_a_name_that_conditions_can_use() -> None:
    with pytest.raises(pydantic.ValidationError, match="signal 'No Fault' must match"):
        PromptSpec(id="p", inputs=("input",), text="{{input}}", signals={"No Fault": "x"})


def test_a_scope_reads_any_case() -> None:
    assert Scope(description="d", pattern="^what").covers("WHAT?")
