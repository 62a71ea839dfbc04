from __future__ import annotations

import pytest

from actors.engines.litellm_faults import litellm_failure
from registries.contracts.errors import Fault, ProviderError, ValidationError


class Response:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


def raised(
    name: str, message: str = "words", status: int | None = None, headers: dict[str, str] | None = None
) -> Exception:
    """An exception as litellm makes them: known by its class's name, a message, a status, a response."""
    base = type("BadRequestError", (Exception,), {}) if name.endswith("(bad request)") else Exception
    error = type(name.split(" ", maxsplit=1)[0], (base,), {})(message)
    error.message = message
    if status is not None:
        error.status_code = status
    if headers is not None:
        error.response = Response(headers)
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (raised("AuthenticationError", status=401), Fault.AUTH),
        (raised("PermissionDeniedError", status=403), Fault.NOT_SERVED),
        (raised("PermissionDeniedError", "invalid_api_key", 403), Fault.AUTH),
        (raised("PermissionDeniedError", "your input was flagged", 403), Fault.CONTENT_POLICY),
        (raised("APIError", "no such model", 404), Fault.NOT_SERVED),
        (raised("NotFoundError", "model x does not exist", 404), Fault.NOT_SERVED),
        (raised("RateLimitError", status=429), Fault.RATE_LIMITED),
        (raised("Timeout", status=408), Fault.TIMEOUT),
        (raised("APIConnectionError"), Fault.REFUSED),
        (raised("ContextWindowExceededError (bad request)", status=400), Fault.CONTEXT_WINDOW),
        (raised("ContentPolicyViolationError (bad request)", status=400), Fault.CONTENT_POLICY),
        (raised("BadRequestError", "This model's maximum context length is 10", 400), Fault.CONTEXT_WINDOW),
        (raised("BadRequestError", "rejected by content policy", 400), Fault.CONTENT_POLICY),
        (raised("InternalServerError", "Connection error.", 500), Fault.REFUSED),
        (raised("InternalServerError", "oops", 500), Fault.BAD_RESPONSE),
        (
            raised("APIError", "peer closed connection without sending complete message body", 500),
            Fault.STREAM_CUT,
        ),
        (raised("SomethingNew"), Fault.BAD_RESPONSE),
    ],
)
def test_names_and_words_give_the_fault(error: Exception, fault: Fault) -> None:
    ours = litellm_failure(error, "openai", "openai/gpt", midstream=False)
    assert isinstance(ours, ProviderError)
    assert ours.fault is fault


def test_a_bad_request_is_the_callers_fault() -> None:
    assert isinstance(
        litellm_failure(raised("BadRequestError", status=400), "p", "m", False), ValidationError
    )


def test_a_connection_lost_in_midstream_is_a_cut_stream() -> None:
    error = litellm_failure(raised("InternalServerError", "Connection error.", 500), "p", "m", midstream=True)
    assert isinstance(error, ProviderError)
    assert error.fault is Fault.STREAM_CUT


def test_a_cut_is_found_in_the_cause() -> None:
    error = raised("InternalServerError", "Connection error.", 500)
    error.__cause__ = raised("RemoteProtocolError", "peer closed connection")
    ours = litellm_failure(error, "p", "m", midstream=False)
    assert isinstance(ours, ProviderError)
    assert ours.fault is Fault.STREAM_CUT


def test_retry_after_is_read_from_the_response() -> None:
    error = raised("RateLimitError", status=429, headers={"retry-after": "4"})
    assert litellm_failure(error, "p", "m", False).retry_after_s == 4
