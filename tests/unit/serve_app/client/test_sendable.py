"""What cannot be sent is a ValidationError that names it, in both clients, and nothing is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from registries.contracts.errors import ValidationError
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunRequest
from serve_app.client import AsyncClient, Client, Connection
from serve_app.client.sendable import path_segment
from tests.unit.serve_app.client.test_run_methods import both

ASK = RunRequest(prompt="x", flow_type="linear")
CALL = GenerationRequest(prompt="x")
BAD_KEYS = ("ö", "a\nb", "", " a", "a ")


def nobody(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"{request.method} {request.url} was asked")


@both
@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("create_run", (ASK,)),
        ("run", (ASK,)),
        ("stream_run", (ASK,)),
        ("inference", (CALL,)),
        ("stream_inference", (CALL,)),
        ("cancel_run", ("r",)),
        ("fork_run", ("r",)),
    ],
)
def test_a_key_that_no_header_carries_is_refused(ask: Any, method: str, args: Any, key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII") as caught:
        ask(nobody, method, *args, idempotency_key=key)
    assert caught.value.param == "idempotency_key"


@both
@pytest.mark.parametrize(
    ("method", "args", "kwargs", "param"),
    [
        ("fork_run", ("r",), {"state": {"scores": {"creator": float("nan")}}}, "state"),
        ("fork_run", ("r",), {"state": {"signals": {"x": {1}}}}, "state"),
        ("fork_run", ("r",), {"request": {"prompt": "\ud800"}}, "request"),
        ("restart_run", ("r",), {"deadline_s": float("inf")}, "deadline_s"),
        ("give_feedback", ("r", float("nan")), {}, "rating"),
        ("runs", (), {"user": "\ud800"}, "user"),
        ("stats", (), {"user": "\ud800"}, "user"),
        ("events", ("r",), {"until": "x"}, "until"),
        ("wait_for", ("r",), {"until": "zz"}, "until"),
    ],
)
def test_what_cannot_be_sent_is_named(ask: Any, method: str, args: Any, kwargs: Any, param: str) -> None:
    with pytest.raises(ValidationError, match=param) as caught:
        ask(nobody, method, *args, **kwargs)
    assert caught.value.param == param


@both
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("get_run", ()),
        ("wait_for", ()),
        ("events", ()),
        ("cancel_run", ()),
        ("restart_run", ()),
        ("fork_run", ()),
        ("resume_run", ("approve",)),
        ("give_feedback", (1.0,)),
    ],
)
@pytest.mark.parametrize("run_id", ["", " ", ".", "..", "\ud800"])
def test_what_is_no_id_asks_for_no_other_path(ask: Any, method: str, more: Any, run_id: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ask(nobody, method, run_id, *more)
    assert caught.value.param == "run_id"


@both
@pytest.mark.parametrize(("method", "param"), [("flow", "name"), ("user_stats", "user")])
def test_other_names_in_a_path_are_checked_too(ask: Any, method: str, param: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ask(nobody, method, "..")
    assert caught.value.param == param


def test_a_segment_is_quoted_whole() -> None:
    assert path_segment("a/..", "run_id", "the id of a run") == "a%2F.."


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("key", [key for key in BAD_KEYS if key])
def test_a_bad_api_key_is_refused_and_not_shown(client: Any, key: str) -> None:
    with pytest.raises(ValidationError, match=r"^api_key must be printable") as caught:
        client("http://h", key)
    assert caught.value.param == "api_key"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "address",
    [
        "not a url",
        "h:80",
        "ftp://h",
        "http://",
        "//h",
        "http://a b",
        "http://h:x",
        "http://h:65536",
        "http://..",
        "http://\ud800",
        f"http://{'a' * 64}",
    ],
)
def test_what_is_no_address_is_refused(client: Any, address: str) -> None:
    with pytest.raises(ValidationError, match=r"http://127\.0\.0\.1:8001") as caught:
        client(address, "key")
    assert caught.value.param == "base_url"


@pytest.mark.parametrize(
    "address",
    ["http://h", "https://h:443/under", "http://[::1]:8001", "http://ö.de", "http://10.0.0.1:65535"],
)
def test_addresses_are_taken(address: str) -> None:
    assert Connection(address, "a key").base_url == address
    assert Connection(address, "").api_key == "", "some questions need none"
