"""When a call is made again, and how long that takes."""

from __future__ import annotations

import random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.errors import CapacityError, ParleyError
from registries.contracts.generation import GenerationRequest
from serve_app.client import Client, Connection, NotRunning, Retries
from serve_app.client.api_errors import AnswerLate, StreamCut, error_from_answer
from serve_app.client.call import get, post
from serve_app.client.retries import Tries, is_transient
from tests.unit.serve_app.sample_answers import GENERATION

ASK = GenerationRequest(prompt="x")


def answered(status: int, code: str | None = None, retryable: bool | None = True) -> ParleyError:
    if code is None:
        return error_from_answer(status, {}, b"<html>a proxy</html>")
    told = {"code": code, "message": "m", **({} if retryable is None else {"retryable": retryable})}
    return error_from_answer(status, {}, httpx.Response(status, json={"error": told}).content)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotRunning("refused"), True),
        (StreamCut("torn"), True),
        (AnswerLate("silent"), False),
        (answered(502), True),
        (answered(503), True),
        (answered(504), True),
        (answered(429), True),
        (answered(500), True),
        (answered(500, "internal_error"), False),
        (answered(400), False),
        (answered(429, "capacity"), True),
        (answered(429, "capacity", retryable=False), False),
        (answered(503, "store_unavailable", retryable=None), True),
        (answered(503, "of_the_future"), True),
        (answered(507, "store_full"), False),
        (answered(502, "provider_error"), False),
        (answered(503, "provider_error"), False),
        (answered(504, "budget_exceeded"), False),
        (CapacityError("from inside a stream"), False),
    ],
)
def test_only_what_passes_is_repeated(error: ParleyError, expected: bool) -> None:
    assert is_transient(error) is expected


@given(st.integers(0, 2000), st.integers(0, 100), st.one_of(st.none(), st.floats(0, 40)))
def test_waits_are_bounded_and_never_before_the_servers_time(
    attempt: int, seed: int, told_s: float | None
) -> None:
    policy = Retries(base_s=0.5, max_wait_s=8, max_retry_after_s=20, rng=random.Random(seed))
    wait_s = policy.wait_s(attempt, CapacityError("full", retry_after_s=told_s))
    if told_s is not None and told_s > 20:
        assert wait_s is None
    else:
        least = told_s or 0.0
        assert wait_s is not None and least <= wait_s <= least + min(8.0, 0.5 * 2.0 ** min(attempt, 10))


def test_waits_differ() -> None:
    policy = Retries(rng=random.Random(1))
    waits = {policy.wait_s(1, NotRunning("x")) for _ in range(20)}
    assert len(waits) == 20, "clients that failed together do not come back together"


def test_nothing_is_repeated_after_the_deadline_or_timeout() -> None:
    late = CapacityError("full", retry_after_s=5, context={"status": 429, "code": "capacity"})
    in_time = Tries(Retries(base_s=0), post("/", {}, deadline_s=6), whole_s=330)
    assert in_time.wait_after(late) == 5
    for tries in (
        Tries(Retries(base_s=0), post("/", {}, deadline_s=4), whole_s=330),
        Tries(Retries(base_s=0), get("/"), whole_s=4),
        Tries(Retries(base_s=0), get("/"), whole_s=330, repeatable=False),
        Tries(Retries(times=0), get("/"), whole_s=330),
    ):
        with pytest.raises(CapacityError):
            tries.wait_after(late)


def test_a_call_is_repeated_twice_at_most() -> None:
    asked: list[str] = []

    def full(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(503, headers={"retry-after": "0"}, text="busy")

    transport, here = httpx.MockTransport(full), Connection("http://p", "k")
    with Client(connection=here, transport=transport, retries=Retries(base_s=0)) as client:
        with pytest.raises(CapacityError):
            client.models()
        assert len(asked) == 3
        with pytest.raises(CapacityError):
            list(client.stream_inference(ASK))
        assert len(asked) == 6
        with pytest.raises(CapacityError):
            client.ready()
        assert len(asked) == 7, "readiness is asked by whoever polls it"


def test_a_direct_stream_is_repeated_only_before_it_began() -> None:
    kinds = ["refused", "torn"]

    def answer(request: httpx.Request) -> httpx.Response:
        if kinds.pop(0) == "refused":
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text='event: token\ndata: {"text": "8"}\n\n')

    transport, here = httpx.MockTransport(answer), Connection("http://p", "k")
    got = []
    client = Client(connection=here, transport=transport, retries=Retries(base_s=0))
    with client, pytest.raises(StreamCut):
        for item in client.stream_inference(ASK):
            got.append(item.text)
    assert got == ["8"] and kinds == []


def test_a_run_that_may_take_long_is_given_its_time() -> None:
    timeouts: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json=GENERATION)

    transport, here = httpx.MockTransport(answer), Connection("http://p", "k", timeout_s=100)
    with Client(connection=here, transport=transport) as client:
        client.inference(ASK)
        client.inference(GenerationRequest(prompt="x", deadline_s=10))
        client.inference(GenerationRequest(prompt="x", deadline_s=3600))
    assert timeouts == [100, 100, 3630]
