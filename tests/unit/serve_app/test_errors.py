from __future__ import annotations

import json

import pytest

from registries.contracts.errors import (
    ALL_ERRORS,
    CapacityError,
    Fault,
    InternalError,
    ParleyError,
    ProviderError,
)
from serve_app.error_response import error_response
from serve_app.errors import STATUS_BY_CODE, as_parley_error, error_fact, error_headers, http_status


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_of_the_tree_has_a_status_and_the_shape(kind: type[ParleyError]) -> None:
    assert kind.code in STATUS_BY_CODE
    response = error_response(kind("what happened", param="field"), "req-1")
    shown = json.loads(response.body)["error"]
    assert response.status_code == http_status(kind.code)
    assert shown["code"] == kind.code and shown["message"] == "what happened"
    assert shown["param"] == "field" and shown["request_id"] == "req-1"
    assert isinstance(shown["retryable"], bool)


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_a_status(fault: Fault) -> None:
    assert 400 <= http_status("provider_error", fault.value) < 600


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    assert error_headers(error_fact(CapacityError("full", retry_after_s=0.2)))["retry-after"] == "1"
    assert error_headers(error_fact(CapacityError("full", retry_after_s=2.1)))["retry-after"] == "3"
    assert error_headers(error_fact(CapacityError("full")))["retry-after"] == "1"
    assert "retry-after" not in error_headers(error_fact(InternalError("x")))


def test_our_error_comes_out_of_a_wrapper_and_strangers_become_internal() -> None:
    class Wrapper(Exception):
        def __init__(self, cause: Exception) -> None:
            self.cause = cause

    inside = ProviderError("gone", Fault.REFUSED)
    assert as_parley_error(Wrapper(inside)) is inside
    assert as_parley_error(inside) is inside
    stranger = as_parley_error(KeyError("secret"))
    assert isinstance(stranger, InternalError) and "secret" not in str(stranger)
