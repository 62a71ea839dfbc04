"""What the runtime answered instead of a result, as errors of our tree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registries.contracts.errors import (
    ALL_ERRORS,
    CapacityError,
    Fault,
    InternalError,
    ParleyError,
    ProviderError,
    ValidationError,
)

_BY_CODE: Mapping[str, type[ParleyError]] = {error.code: error for error in ALL_ERRORS}
_BY_STATUS: Mapping[int, type[ParleyError]] = {
    400: ValidationError,
    422: ValidationError,
    413: ValidationError,
}
_BUSY = frozenset({429, 503})
_BODY_SHOWN_CHARS = 200


class NotRunning(ParleyError):
    """Nobody answers at the runtime's address."""

    code = "not_running"
    retryable = True


class AnswerLate(NotRunning):
    """The runtime did not answer within the time that it was given; it may still be at work."""


class StreamCut(NotRunning):
    """A stream had begun and broke, or ended without its last event."""


class StreamEnded(StreamCut):
    """A stream ended in good order between two events; whether it was over, its last event must say."""


def error_from_answer(status: int, headers: Mapping[str, str], body: bytes) -> ParleyError:
    """The error of a response. ``context`` has status, code and request_id; ``retry_after_s`` seconds.

    Also for answers that are not ours: a proxy's page, an empty body.
    """
    told = _told(body)
    request_id = told.get("request_id") or headers.get("x-request-id", "")
    return make_error(
        told,
        fallback=_BY_STATUS.get(status, CapacityError if status in _BUSY else InternalError),
        message=f"HTTP {status}: {body[:_BODY_SHOWN_CHARS].decode('utf-8', 'replace').strip() or 'no body'}",
        retry_after_s=_seconds(headers.get("retry-after")) or _seconds(told.get("retry_after_s")),
        context={"status": status, "code": told.get("code"), "request_id": request_id},
    )


def error_from_fact(fact: Mapping[str, Any]) -> ParleyError:
    """The error inside a stream or a failed run's result (ErrorFact's fields)."""
    context = {"status": None, "code": fact.get("code"), "request_id": fact.get("request_id", "")}
    return make_error(
        fact, InternalError, "the runtime told no reason", _seconds(fact.get("retry_after_s")), context
    )


def make_error(
    told: Mapping[str, Any],
    fallback: type[ParleyError],
    message: str,
    retry_after_s: float | None,
    context: Mapping[str, Any],
) -> ParleyError:
    """The class by code, else the fallback; unknown codes of newer runtimes are kept in the context."""
    kind = _BY_CODE.get(str(told.get("code")), fallback)
    text, param = str(told.get("message") or message), told.get("param")
    error: ParleyError
    if kind is ProviderError:
        fault = str(told.get("fault") or "")
        known = Fault(fault) if fault in set(Fault) else Fault.BAD_RESPONSE
        error = ProviderError(text, known, "", "", param, retry_after_s, context)
    else:
        error = kind(text, param, retry_after_s, context)
    if isinstance(told.get("retryable"), bool):
        error.retryable = told["retryable"]
    return error


def _told(body: bytes) -> Mapping[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError):
        return {}
    return error if isinstance(error, dict) else {}


def _seconds(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
