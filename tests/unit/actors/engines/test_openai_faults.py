from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.openai_faults import MAX_RETRY_AFTER_S, error_body, provider_failure, retry_after_s
from registries.contracts.errors import Fault, ParleyError, ProviderError, ValidationError


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (401, {"error": {"code": "invalid_api_key", "message": "no"}}, Fault.AUTH),
        (402, "pay", Fault.AUTH),
        (403, "", Fault.NOT_SERVED),
        (403, {"error": {"code": "invalid_api_key", "message": "no"}}, Fault.AUTH),
        (
            403,
            {"error": {"code": 403, "message": "model requires moderation, input flagged"}},
            Fault.CONTENT_POLICY,
        ),
        (
            403,
            {"error": {"type": "permission_error", "message": "Your API key may not use it"}},
            Fault.NOT_SERVED,
        ),
        (404, {"error": "model 'x' not found"}, Fault.NOT_SERVED),
        (404, "", Fault.NOT_SERVED),
        (408, "", Fault.TIMEOUT),
        (413, "", Fault.CONTEXT_WINDOW),
        (429, {"error": {"message": "slow down"}}, Fault.RATE_LIMITED),
        (500, "<html>", Fault.BAD_RESPONSE),
        (503, "", Fault.BAD_RESPONSE),
        (504, "", Fault.TIMEOUT),
        (307, "", Fault.BAD_RESPONSE),
        (400, {"error": {"code": "context_length_exceeded", "message": "m"}}, Fault.CONTEXT_WINDOW),
        (400, {"object": "error", "message": "maximum context length is 10"}, Fault.CONTEXT_WINDOW),
        (400, {"error": {"code": "content_filter", "message": "m"}}, Fault.CONTENT_POLICY),
        (200, {"error": {"type": "server_error", "message": "oops"}}, Fault.BAD_RESPONSE),
        (200, {"error": {"type": "rate_limit_error", "message": "oops"}}, Fault.RATE_LIMITED),
        (200, {"error": {"code": "invalid_api_key", "message": "oops"}}, Fault.AUTH),
        (200, {"error": {"code": "model_not_found", "message": "oops"}}, Fault.NOT_SERVED),
    ],
)
def test_status_and_words_give_the_fault(status: int, body: Any, fault: Fault) -> None:
    error = provider_failure("openai", "gpt", status, body)
    assert isinstance(error, ProviderError)
    assert error.fault is fault
    assert (error.provider, error.model) == ("openai", "gpt")


@pytest.mark.parametrize("status", [400, 422])
def test_the_callers_own_fault_is_a_validation_error(status: int) -> None:
    error = provider_failure("openai", "gpt", status, {"error": {"message": "bad", "param": "temperature"}})
    assert isinstance(error, ValidationError)
    assert error.param == "temperature"
    assert not error.retryable


def test_retry_after_travels_with_the_error() -> None:
    assert provider_failure("p", "m", 429, "", {"Retry-After": "12"}).retry_after_s == 12


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 10.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "90000"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "-5"}, 0.0),
        ({"retry-after-ms": "1e300"}, MAX_RETRY_AFTER_S),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now_s=90.0) == seconds


@given(st.text(max_size=30) | st.floats().map(str), st.sampled_from(["Retry-After", "retry-after-ms"]))
def test_no_header_breaks_retry_after(value: str, name: str) -> None:
    seconds = retry_after_s({name: value})
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "object", "message", "code"]), inner, max_size=3), max_leaves=6)  # fmt: skip  # noqa: E501


@given(st.integers(100, 599), JSON)
def test_every_answer_has_an_error_of_the_tree(status: int, body: Any) -> None:
    error = provider_failure("p", "m", status, body)
    assert isinstance(error, ParleyError)
    assert len(error.message) < 400


def test_a_page_of_html_is_not_repeated_to_the_user() -> None:
    assert len(provider_failure("p", "m", 502, "<html>" * 1000).message) < 400


def test_no_error_object_in_an_answer() -> None:
    assert error_body({"choices": []}) is None
    assert error_body([1]) is None
