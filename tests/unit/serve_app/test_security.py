from __future__ import annotations

import asyncio

import pytest

from registries.contracts.errors import ValidationError
from serve_app.auth import KeyCheck, presented_key
from serve_app.middleware.authentication import OPEN_PATHS, Authentication
from serve_app.request_facts import read_request_facts
from tests.unit.serve_app.front_door import KEY, front_door

CLOSED = [
    ("POST", "/api/inference"),
    ("POST", "/api/orchestrate"),
    ("GET", "/api/models"),
    ("GET", "/api/strategies"),
    ("GET", "/api/flows"),
    ("GET", "/api/flows/linear"),
    ("GET", "/api/system"),
    ("GET", "/metrics"),
    ("GET", "/api/runs/x"),
    ("GET", "/api/runs"),
    ("GET", "/api/runs/x/events"),
    ("POST", "/api/runs"),
    ("POST", "/api/runs/stream"),
    ("POST", "/api/runs/x/cancel"),
    ("POST", "/api/runs/x/restart"),
    ("POST", "/api/runs/x/resume"),
    ("POST", "/api/runs/x/fork"),
    ("POST", "/api/runs/x/feedback"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"authorization": f"Basic {KEY}"}])
async def test_everything_else_needs_the_key(method: str, path: str, headers: dict[str, str]) -> None:
    async with front_door() as door:
        del door.client.headers["x-api-key"]
        answer = await door.client.request(method, path, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "unauthorized"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_open_routes_need_none(path: str) -> None:
    async with front_door() as door:
        del door.client.headers["x-api-key"]
        assert (await door.client.get(path)).status_code == 200


async def test_ready_tells_details_to_the_key_alone() -> None:
    async with front_door() as door:
        door.cluster.status = "loading"
        full = await door.client.get("/api/ready")
        wrong = await door.client.get("/api/ready", headers={"x-api-key": "wrong"})
    assert full.status_code == 503 and full.json()["parts"]["nano-s"]["reason"] == "no weights"
    assert wrong.json() == {"status": "loading"}


async def test_the_key_is_asked_for_before_the_body_is_read() -> None:
    async with front_door() as door:
        sent = []

        async def receive() -> dict[str, object]:
            raise AssertionError("the body was read")

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/inference",
            "headers": [],
            "query_string": b"",
        }
        await door.app(scope, receive, send)
    assert sent[0]["status"] == 401


async def test_every_answer_has_the_security_headers() -> None:
    async with front_door() as door:
        answers = await asyncio.gather(
            *(door.client.get(path) for path in ("/api/health", "/nowhere", "/docs"))
        )
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "max-age=" in answer.headers["strict-transport-security"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert len(answer.headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("given", [b"", b"a" * 129, b"two words", b'q"uote', "é".encode()])
def test_unreasonable_request_ids_are_replaced(given: bytes) -> None:
    facts = read_request_facts([(b"x-request-id", given)])
    assert len(facts.request_id) == 32 and facts.request_id.isalnum()


def test_reasonable_request_ids_and_trace_contexts_are_kept() -> None:
    trace = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    facts = read_request_facts([(b"x-request-id", b"a-1:2"), (b"traceparent", trace)])
    assert facts.request_id == "a-1:2" and facts.traceparent == trace.decode()
    assert read_request_facts([(b"traceparent", b"nonsense")]).traceparent is None


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="api_key"):
        KeyCheck("")


def test_keys_are_read_from_both_headers() -> None:
    assert presented_key([(b"authorization", b"Bearer abc")]) == b"abc"
    assert presented_key([(b"authorization", b"Bearer abc"), (b"x-api-key", b"def")]) == b"def"
    assert presented_key([(b"authorization", b"Basic abc")]) is None
    assert not KeyCheck("abc").accepts([(b"x-api-key", b"abd")])


@pytest.mark.parametrize(("headers", "passed"), [([], False), ([(b"x-api-key", KEY.encode())], True)])
async def test_websockets_need_the_key_as_well(headers: list[tuple[bytes, bytes]], passed: bool) -> None:
    reached, sent = [], []

    async def inner(scope: object, receive: object, send: object) -> None:
        reached.append(scope)

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    door = Authentication(inner, KeyCheck(KEY))  # type: ignore[arg-type]
    await door({"type": "websocket", "path": "/ws", "headers": headers}, receive, send)  # type: ignore[arg-type]
    assert bool(reached) is passed
    assert sent == ([] if passed else [{"type": "websocket.close", "code": 1008}])
