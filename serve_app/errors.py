"""Errors to HTTP: the one table from code to status, and the one shape of an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from registries.contracts.errors import (
    BudgetError,
    CapacityError,
    Fault,
    InternalError,
    ParleyError,
    ProviderError,
    StoreError,
    StoreFull,
    ValidationError,
)
from registries.contracts.runs import ErrorFact


class PayloadTooLarge(ValidationError):
    """The body has more bytes than the runtime takes."""

    code = "payload_too_large"


class MethodNotAllowed(ParleyError):
    """The route exists, but not for this method."""

    code = "method_not_allowed"


STATUS_BY_CODE: Mapping[str, int] = {
    "invalid_request": 400,
    "payload_too_large": 413,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "lease_lost": 409,
    "idempotency_key_reused": 422,
    "capacity": 429,
    "budget_exceeded": 402,
    "provider_error": 502,
    "tool_error": 502,
    "store_unavailable": 503,
    "store_full": 507,
    "cancelled": 409,
    "internal": 500,
}
"""Every code of the tree; a test holds this table and the tree together."""

STATUS_BY_FAULT: Mapping[str, int] = {
    Fault.TIMEOUT: 504,
    Fault.RATE_LIMITED: 503,
    Fault.CONTEXT_WINDOW: 400,
    Fault.CONTENT_POLICY: 400,
}
"""Where the class of a provider's fault says more than 502."""

DEADLINE_STATUS = 504
DEFAULT_RETRY_AFTER_S: Mapping[str, float] = {
    CapacityError.code: 1.0,
    StoreError.code: 1.0,
    StoreFull.code: 60.0,
}
"""Told when the error itself names no time: a second is one scheduling round; a full disk takes a human."""


def http_status(code: str, fault: str | None = None, param: str | None = None) -> int:
    """The status of an error; a spent deadline (param "deadline_s") is 504, spent money 402."""
    if code == ProviderError.code and fault is not None and fault in STATUS_BY_FAULT:
        return STATUS_BY_FAULT[fault]
    if code == BudgetError.code and param == "deadline_s":
        return DEADLINE_STATUS
    return STATUS_BY_CODE.get(code, 500)


def as_parley_error(error: BaseException) -> ParleyError:
    """Our own error, also out of the wrapper that Ray puts around one; everything else is InternalError."""
    cause = getattr(error, "cause", None)
    for candidate in (cause, error):
        if isinstance(candidate, ParleyError):
            return candidate
    return InternalError("an internal error happened; the log has it under this request_id")


def error_fact(error: ParleyError) -> ErrorFact:
    """The error as results and events carry it."""
    return ErrorFact(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        fault=error.fault.value if isinstance(error, ProviderError) else None,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )


def error_object(fact: ErrorFact, request_id: str) -> dict[str, Any]:
    """The value of ``error`` in a body (see schemas.ErrorDetail)."""
    shown: dict[str, Any] = {
        "code": fact.code,
        "message": fact.message,
        "param": fact.param,
        "request_id": request_id,
        "retryable": fact.retryable,
    }
    if fact.fault is not None:
        shown["fault"] = fact.fault
    if fact.retry_after_s is not None:
        shown["retry_after_s"] = fact.retry_after_s
    return shown


def error_body(fact: ErrorFact, request_id: str) -> bytes:
    """``{"error": {...}}`` as JSON."""
    return json.dumps({"error": error_object(fact, request_id)}, ensure_ascii=False).encode()


def error_headers(fact: ErrorFact) -> dict[str, str]:
    """Headers that belong to the error: Retry-After in whole seconds (at least 1), WWW-Authenticate."""
    headers: dict[str, str] = {}
    retry_after_s = fact.retry_after_s
    if retry_after_s is None:
        retry_after_s = DEFAULT_RETRY_AFTER_S.get(fact.code)
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    if fact.code == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    return headers
