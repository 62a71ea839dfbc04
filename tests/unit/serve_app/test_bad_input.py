from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serve_app.front_door import FrontDoor, front_door


@pytest.fixture
async def door() -> AsyncIterator[FrontDoor]:
    async with front_door(max_body_bytes=2000) as opened:
        yield opened


async def refused(
    door: FrontDoor, path: str = "/api/inference", **request: Any
) -> tuple[int, dict[str, Any]]:
    answer = await door.client.post(path, **request)
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b'{"prompt": "\xff"}', "UTF-8 (byte 12)"),
        (b"{prompt}", "not valid JSON"),
        (b'{"prompt": "hi"', "not valid JSON"),
        (b"[1, 2]", "must be a JSON object, got [1, 2]"),
        (b"null", "must be a JSON object, got None"),
        (b"[" * 1900, "not valid JSON"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b'{"prompt": "hi", "temperature": NaN}', "nan is not allowed"),
    ],
)
async def test_bodies_that_are_no_request(door: FrontDoor, content: bytes, told: str) -> None:
    status, error = await refused(door, content=content)
    assert (status, error["code"]) == (400, "invalid_request")
    assert told in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"prompt": "hi", "max_tokens": -5}, "max_tokens", "-5 is not allowed"),
        ({"prompt": "hi", "max_tokens": 10**12}, "max_tokens", "131072"),
        ({"prompt": "hi", "max_tokens": "many"}, "max_tokens", "'many'"),
        ({"prompt": "hi", "max_tokens": True}, "max_tokens", "True is not allowed: a number is needed"),
        ({"prompt": "hi", "max_tokens": 3.5}, "max_tokens", "3.5 is not allowed"),
        ({"prompt": "hi", "temperature": False}, "temperature", "False is not allowed: a number is needed"),
        ({"prompt": 7}, "prompt", "7 is not allowed"),
        ({"prompt": "hi", "temperature": 9}, "temperature", "less than or equal to 2"),
        ({"promt": "hi"}, "promt", "Did you mean 'prompt'?"),
        ({"prompt": "  "}, "body", "prompt must not be empty"),
        ({}, "body", "prompt must not be empty"),
        ({"prompt": "hi", "context": {"histroy": []}}, "context.histroy", "unknown field"),
        ({"prompt": "hi", "attachments": [{"type": "image_url"}]}, "attachments.0", "needs url"),
        (
            {"prompt": "hi", "attachments": [{"type": "image_url", "url": "file:///etc/passwd"}]},
            "attachments.0.url",
            "http://, https:// or data:",
        ),
        (
            {"prompt": "hi", "attachments": [{"type": "image", "data": "aaaaa"}]},
            "attachments.0.data",
            "not base64",
        ),
        ({"prompt": "hi", "stop": [""]}, "stop.0", "at least 1 character"),
        ({"prompt": "hi", "stop": ["x"] * 17}, "stop", "at most 16"),
        ({"prompt": "hi", "response_format": {}}, "response_format", "needs a type"),
        ({"prompt": "hi", "response_format": {"type": "json_schema"}}, "response_format", "an object"),
        (
            {"prompt": "hi", "response_format": {"type": "json_schema", "json_schema": {"schema": None}}},
            "response_format",
            "an object",
        ),
        ({"prompt": "hi", "messages": [{"role": "boss", "content": "x"}]}, "messages.0.role", "'boss'"),
    ],
)
async def test_wrong_fields_are_named_with_their_value(
    door: FrontDoor, body: dict[str, Any], param: str, told: str
) -> None:
    status, error = await refused(door, json=body)
    assert (status, error["code"], error["param"]) == (400, "invalid_request", param)
    assert told in error["message"] and error["retryable"] is False


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"prompt": "hi", "model_key": "nano-x"}, "model_key", "Did you mean 'nano-"),
        ({"prompt": "hi", "model_key": "tier:huge"}, "model_key", "balanced"),
        ({"prompt": "hi", "strategy": "optimised"}, "strategy", "Did you mean 'optimized'?"),
    ],
)
async def test_unknown_names_get_a_suggestion(
    door: FrontDoor, body: dict[str, Any], param: str, told: str
) -> None:
    status, error = await refused(door, json=body)
    assert (status, error["code"], error["param"]) == (404, "not_found", param)
    assert told in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "param", "told"),
    [
        ({"prompt": "hi", "flow_type": "chalenge"}, 404, "flow_type", "Did you mean 'challenge'?"),
        (
            {"prompt": "hi", "flow_type": "linear", "flow_version": "0"},
            400,
            "flow_version",
            "is not the version",
        ),
        ({"prompt": "hi", "flow_type": "linear", "strategy": "x"}, 404, "strategy", "Known: "),
        (
            {"prompt": "hi", "flow_type": "challenge", "models": {"king": "nano-m"}},
            400,
            "models.king",
            "roles",
        ),
        (
            {"prompt": "hi", "flow_type": "challenge", "models": {"creator": "no"}},
            404,
            "models.creator",
            "Known",
        ),
        ({"prompt": "hi"}, 400, "flow_type", "is missing"),
        ({"flow_type": "linear"}, 400, "body", "prompt must not be empty"),
        ({"input": {"color": 1}, "flow_type": "linear"}, 400, "input.color", "allowed: prompt"),
        ({"prompt": "hi", "flow_type": "linear", "mode": "background"}, 400, "mode", "'wait' or 'stream'"),
        ({"prompt": "hi", "flow_type": "linear", "mode": "wait", "stream": True}, 400, "body", "contradicts"),
        ({"prompt": "hi", "flow_type": "linear", "deadline_s": 0}, 400, "deadline_s", "greater than 0"),
    ],
)
async def test_runs_that_cannot_run_are_refused_before_they_are_accepted(
    door: FrontDoor, body: dict[str, Any], status: int, param: str, told: str
) -> None:
    got, error = await refused(door, "/api/orchestrate", json=body)
    assert (got, error["param"]) == (status, param)
    assert told in error["message"]
    assert await door.rows() == [] and door.runner.asked == []


async def test_a_huge_body_is_refused_by_its_announced_size(door: FrontDoor) -> None:
    status, error = await refused(door, json={"prompt": "x" * 3000})
    assert (status, error["code"]) == (413, "payload_too_large") and "2000" in error["message"]


async def test_a_huge_body_without_a_length_is_refused_while_it_streams_in(door: FrontDoor) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b"x" * 1000

    status, error = await refused(door, content=endless())
    assert (status, error["code"]) == (413, "payload_too_large")
    assert sent <= 4000


async def test_many_problems_are_told_in_one_message(door: FrontDoor) -> None:
    _, error = await refused(door, json={"prompt": "hi", "max_tokens": 0, "top_p": 3, "seed": -1})
    for field in ("max_tokens", "top_p", "seed"):
        assert field in error["message"]


async def test_unknown_routes_and_wrong_methods_have_our_shape(door: FrontDoor) -> None:
    missing = await door.client.get("/api/modles")
    wrong = await door.client.get("/api/inference")
    slash = await door.client.get("/api/health/")
    assert missing.status_code == 404 and "/api/models" in missing.json()["error"]["message"]
    assert wrong.status_code == 405 and wrong.json()["error"]["code"] == "method_not_allowed"
    both = await door.client.delete("/api/runs")
    assert both.headers["allow"] == "GET, POST" and "allowed: GET, POST" in both.json()["error"]["message"]
    assert wrong.headers["allow"] == "POST" and slash.status_code == 404


# Lists, because opening a front door costs more than many requests do.
@settings(deadline=None, max_examples=5)
@given(contents=st.lists(st.binary(max_size=300), min_size=10, max_size=20))
async def test_no_bytes_ever_make_an_internal_error(contents: list[bytes]) -> None:
    paths = ("/api/inference", "/api/orchestrate", "/api/runs", "/api/runs/stream")
    async with front_door() as door:
        for path, content in itertools.product(paths, contents):
            answer: httpx.Response = await door.client.post(path, content=content)
            assert answer.status_code in (200, 400, 404)
            assert answer.status_code == 200 or answer.json()["error"]["message"]


@pytest.mark.parametrize("field", ["max_tokens", "seed", "deadline_s", "budget_usd"])
async def test_a_boolean_is_no_number_of_a_run(door: FrontDoor, field: str) -> None:
    body = {"prompt": "hi", "flow_type": "linear", field: True}
    status, error = await refused(door, "/api/orchestrate", json=body)
    assert (status, error["param"]) == (400, field)
    assert "not true or false" in error["message"]


@pytest.mark.parametrize("field", ["max_tokens", "temperature", "top_p", "top_k", "seed", "deadline_s"])
async def test_a_boolean_is_no_number_of_a_model_call(door: FrontDoor, field: str) -> None:
    status, error = await refused(door, json={"prompt": "hi", field: True})
    assert (status, error["param"]) == (400, field)
    assert "not true or false" in error["message"]
