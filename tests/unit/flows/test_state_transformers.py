"""The pipeline from an order to the first state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows.state_transformers import PIPELINE, first_state
from registries.contracts.errors import ValidationError
from tests.unit.flows.fakes import flow_of, order

FILES = flow_of(nodes=[{"id": "one"}], input=["prompt", "files?", "file?", "city"])


def state_of(**request: Any) -> Any:
    return first_state(order("trial", **request), FILES, ["trial"])


def test_the_steps_have_names() -> None:
    assert [name for name, _ in PIPELINE] == [
        "check_workflow_type",
        "check_required_fields",
        "check_rounds",
        "check_file_names",
        "enrich_with_metadata",
    ]


def test_a_state_is_json_and_knows_who_asked() -> None:
    state = state_of(input={"city": "Rome", "files": ["a.PNG", "b.pdf", "c.jpg"]}, conversation_id="c")
    assert json.loads(json.dumps(state)) == state
    assert (state["version"], state["run_id"], state["request_id"]) == (1, "run-1", "req-1")
    assert state["memory"]["metadata"] == {
        "flow": "trial",
        "flow_version": FILES.version,
        "tenant": "default",
        "user": "admin",
        "conversation_id": "c",
    }


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({}, "input.city", "is required"),
        ({"city": " "}, "input.city", "is required"),
        ({"city": "x", "town": "y"}, "input.town", "allowed: prompt, files, file, city"),
        (
            {"city": "x", "files": ["a.png", "b.exe"]},
            "input.files",
            "'b.exe' must end in one of .png, .jpg, .pdf",
        ),
        ({"city": "x", "file": "noend"}, "input.file", "must end in one of"),
        ({"city": "x", "files": [7]}, "input.files", "7 must end in one of"),
    ],
)
def test_wrong_input_names_its_field(values: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        state_of(input=values)
    assert caught.value.param == param


def test_an_unregistered_flow_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"unknown flow_type 'other'\. Known: trial"):
        first_state(order("other", input={"city": "x"}), FILES, ["trial"])


def test_the_prompt_may_come_as_input_alone() -> None:
    state = state_of(prompt="", input={"prompt": "hello", "city": "x"})
    assert state["input"]["prompt"] == "hello"
