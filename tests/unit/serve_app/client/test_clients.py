"""Both clients against a real HTTP server: answers, streams, and every kind of failure."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from registries.contracts.errors import (
    CapacityError,
    InternalError,
    NotFound,
    ProviderError,
    Unauthorized,
    ValidationError,
)
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import RunRequest
from serve_app.client import AsyncClient, Client, Connection, NotRunning, Retries, find_connection
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.settings import load_settings
from tests.unit.serve_app.fake_runtime import Answer, FakeRuntime, fake_runtime
from tests.unit.serve_app.sample_answers import GENERATION, RUN, run_events

ASK = GenerationRequest(prompt="What is 48 + 37?")
DELIBERATE = RunRequest(prompt="What is 48 + 37?", flow_type="challenge")
TOKENS = [("token", {"text": "48 + 37"}), ("token", {"text": " = 85"})]


ONCE = Retries(times=0, base_s=0)


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with fake_runtime() as made:
        yield made


@pytest.fixture
def client(fake: FakeRuntime) -> Iterator[Client]:
    with Client(connection=Connection(fake.url, "key-1", timeout_s=5), retries=ONCE) as made:
        yield made


def test_a_call_carries_the_key_and_only_what_was_set(fake: FakeRuntime, client: Client) -> None:
    fake.json("POST /api/inference", GENERATION)
    assert client.inference(ASK).text == "48 + 37 = 85"
    assert fake.asked == [("POST /api/inference", "key-1", {"prompt": "What is 48 + 37?", "stream": False})]


def test_a_run_is_whole(fake: FakeRuntime, client: Client) -> None:
    fake.json("POST /api/orchestrate", RUN | {"a_newer_field": 1})
    result = client.run(DELIBERATE)
    assert result.answer == "85" and [n.role for n in result.nodes] == ["creator", "challenger", "refiner"]


def test_a_direct_stream_gives_chunks_then_the_result(fake: FakeRuntime, client: Client) -> None:
    fake.events("POST /api/inference", *TOKENS, ("result", GENERATION))
    items = list(client.stream_inference(ASK))
    assert "".join(i.text for i in items if isinstance(i, GenerationChunk)) == "48 + 37 = 85"
    assert isinstance(items[-1], GenerationResult)


def test_a_runs_stream_ends_with_its_terminal_event(fake: FakeRuntime, client: Client) -> None:
    fake.events("POST /api/orchestrate", *run_events(), ("run.started", run_events()[0][1]))
    types = [event.type for event in client.stream_run(DELIBERATE)]
    assert types[0] == "run.queued" and types[-1] == "run.completed"


def test_a_cut_stream_is_never_a_success(fake: FakeRuntime, client: Client) -> None:
    fake.events("POST /api/inference", *TOKENS)
    with pytest.raises(NotRunning, match="cut off"):
        list(client.stream_inference(ASK))
    fake.events("POST /api/inference", *TOKENS, cut=True)
    with pytest.raises(NotRunning, match="broke"):
        list(client.stream_inference(ASK))


def test_an_error_inside_a_stream_is_raised(fake: FakeRuntime, client: Client) -> None:
    error = {"code": "provider_error", "message": "gone", "fault": "stream_cut", "request_id": "r"}
    fake.events("POST /api/inference", TOKENS[0], ("error", {"error": error}))
    with pytest.raises(ProviderError, match="gone") as caught:
        list(client.stream_inference(ASK))
    assert caught.value.fault == "stream_cut" and caught.value.context["request_id"] == "r"


def test_an_error_before_a_stream_is_raised(fake: FakeRuntime, client: Client) -> None:
    fake.json("POST /api/orchestrate", {"error": {"code": "not_found", "message": "unknown flow"}}, 404)
    with pytest.raises(NotFound, match="unknown flow"):
        list(client.stream_run(DELIBERATE))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"code": "invalid_request", "message": "field 'x'", "param": "x"}}, ValidationError),
        (401, {"error": {"code": "unauthorized", "message": "no key"}}, Unauthorized),
        (404, {"error": {"code": "not_found", "message": "no"}}, NotFound),
        (413, {"error": {"code": "payload_too_large", "message": "big"}}, ValidationError),
        (429, {"error": {"code": "capacity", "message": "full"}}, CapacityError),
        (502, {"error": {"code": "provider_error", "message": "no", "fault": "refused"}}, ProviderError),
        (500, {"error": {"code": "of_the_future", "message": "no"}}, InternalError),
        (503, "<html>nobody home</html>", CapacityError),
        (500, {"error": "text"}, InternalError),
        (502, [], InternalError),
    ],
)
def test_errors_become_ours(
    fake: FakeRuntime, client: Client, status: int, body: object, expected: type[Exception]
) -> None:
    fake.json("POST /api/inference", body, status, **{"retry-after": "3", "x-request-id": "req-9"})
    with pytest.raises(expected) as caught:
        client.inference(ASK)
    error = caught.value
    assert error.context["status"] == status  # type: ignore[attr-defined]
    assert error.context["request_id"] == "req-9"  # type: ignore[attr-defined]
    assert error.retry_after_s == 3.0  # type: ignore[attr-defined]


def test_somebody_elses_server_is_recognised(fake: FakeRuntime, client: Client) -> None:
    fake.answers["GET /api/models"] = Answer(200, b"<html>hello</html>")
    fake.answers["GET /api/ready"] = Answer(200, b"<html>hello</html>")
    with pytest.raises(InternalError, match="is it Parley"):
        client.models()
    with pytest.raises(InternalError, match="is it Parley"):
        client.ready()


def test_readiness_is_told_whatever_the_status(fake: FakeRuntime, client: Client) -> None:
    parts = {"nano-m": {"state": "loading", "reason": None, "since": 3}}
    fake.json("GET /api/ready", {"status": "loading", "parts": parts}, 503)
    report = client.ready()
    assert report.status == "loading" and report.parts["nano-m"].state == "loading"
    fake.json("GET /api/ready", {"error": {"code": "internal", "message": "x"}}, 500)
    with pytest.raises(InternalError):
        client.ready()


def test_lists_and_facts(fake: FakeRuntime, client: Client) -> None:
    fill_lists(fake)
    fake.json("GET /api/flows/a%2Fb", {"name": "a/b"})
    assert client.models().models[0].state == "warming" and client.strategies().strategies[0].name == "s"
    assert client.flows().flows[0].roles == ("creator",) and client.system().version == "9"
    assert client.flow("a/b").name == "a/b"
    newer = client.models().models[0].model_dump()
    assert newer["newer"] == {"deep": 1}, "kept for who prints it"
    fake.json("GET /api/models", [])
    fake.json("GET /api/system", {"version": None})
    with pytest.raises(InternalError, match="no ModelList"):
        client.models()
    with pytest.raises(InternalError, match="no SystemFacts"):
        client.system()


def fill_lists(fake: FakeRuntime) -> None:
    """As a newer runtime tells them."""
    entry = {"key": "m", "state": "warming", "engine": "abacus", "newer": {"deep": 1}}
    fake.json("GET /api/models", {"models": [entry], "tiers": {"strong": "m"}, "newer": 1})
    fake.json("GET /api/strategies", {"strategies": [{"name": "s", "newer": 1}], "default": "s"})
    fake.json("GET /api/flows", {"flows": [{"name": "f", "roles": ["creator"], "newer": 1}]})
    fake.json("GET /api/system", {"version": "9", "newer": 1})


def test_nobody_there_says_how_to_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Client(connection=Connection(f"http://127.0.0.1:{port}", "k"), retries=ONCE) as client:
        with pytest.raises(NotRunning, match="parley up"):
            client.models()
        with pytest.raises(NotRunning, match="parley up"):
            list(client.stream_run(DELIBERATE))


async def test_the_async_client_does_the_same(fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN)
    fake.events("POST /api/inference", *TOKENS, ("result", GENERATION))
    fake.json("GET /api/ready", {"status": "ready"})
    fill_lists(fake)
    fake.json("GET /api/flows/linear", {"name": "linear"})
    async with AsyncClient(connection=Connection(fake.url, "k"), retries=ONCE) as client:
        assert (await client.run(DELIBERATE)).answer == "85"
        assert len([item async for item in client.stream_inference(ASK)]) == 3
        assert (await client.ready()).status == "ready"
        assert (await client.models()).tiers == {"strong": "m"} and (await client.strategies()).default == "s"
        assert (await client.flows()).flows[0].name == "f" and (await client.system()).version == "9"
        assert (await client.flow("linear")).name == "linear"


async def test_the_async_client_fails_the_same(fake: FakeRuntime) -> None:
    fake.json("POST /api/inference", {"error": {"code": "capacity", "message": "full"}}, 429)
    fake.events("POST /api/orchestrate", *run_events()[:3])
    async with AsyncClient(connection=Connection(fake.url, "k"), retries=ONCE) as client:
        with pytest.raises(CapacityError):
            await client.inference(ASK)
        with pytest.raises(CapacityError):
            _ = [item async for item in client.stream_inference(ASK)]
        with pytest.raises(NotFound, match="no route /api/runs/run-1/events"):
            _ = [event async for event in client.stream_run(DELIBERATE)]
    async with AsyncClient(connection=Connection("http://127.0.0.1:9", "k"), retries=ONCE) as client:
        with pytest.raises(NotRunning):
            await client.models()
        with pytest.raises(NotRunning):
            _ = [event async for event in client.stream_run(DELIBERATE)]


def test_address_and_key_are_found(tmp_path: Path) -> None:
    env = {"PARLEY_HOME": str(tmp_path / "h"), "PORT": "9123"}
    settings = load_settings(env, None)
    with pytest.raises(Unauthorized, match="parley up"):
        find_connection(settings=settings)
    home = RuntimeHome(Path(settings.home))
    home.ensure()
    key = home.admin_key()
    found = find_connection(settings=settings)
    assert (found.base_url, found.api_key) == ("http://127.0.0.1:9123", key)
    assert key not in repr(found)
    own = load_settings({**env, "PARLEY_API_KEY": "own-key-0123456789"}, None)
    assert find_connection(settings=own).api_key == "own-key-0123456789"
    assert find_connection("http://other:1/", "given", settings=own).base_url == "http://other:1"
