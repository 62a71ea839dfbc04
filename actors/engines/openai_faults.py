"""What an OpenAI-compatible provider's failure means in our tree."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from registries.contracts.errors import Fault, ParleyError, ProviderError, ValidationError

_BY_STATUS = {
    401: Fault.AUTH,
    402: Fault.AUTH,
    408: Fault.TIMEOUT,
    413: Fault.CONTEXT_WINDOW,
    429: Fault.RATE_LIMITED,
    504: Fault.TIMEOUT,
}
CONTEXT_WORDS = ("context_length", "context length", "context window", "maximum context", "too many tokens")
POLICY_WORDS = (
    "content_policy", "content policy", "content_filter", "content management policy", "moderation",
    "flagged",
)  # fmt: skip
_AUTH = (
    "invalid_api_key", "invalid api key", "api key not valid", "insufficient_quota", "authentication_error",
    "billing",
)  # fmt: skip
_NOT_SERVED = ("permission_error", "not_found_error", "model_not_found")
_LIMITED = ("rate_limit", "rate limit", "overloaded_error")
MAX_RETRY_AFTER_S = 3600.0
"""Longest rest that a provider may ask for: what it means for longer it says again in an hour."""
# Of a provider's own words this much is told; a whole HTML page is not.
_MAX_WORDS = 300


def retry_after_s(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date), 0 to MAX_RETRY_AFTER_S.

    None where they cannot be read.
    """
    try:
        seconds = _told_s(headers, time.time() if now_s is None else now_s)
    except (ValueError, TypeError, OverflowError):
        return None
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(MAX_RETRY_AFTER_S, max(0.0, seconds))


def _told_s(headers: Mapping[str, str], now_s: float) -> float | None:
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    value = headers.get("Retry-After")
    if value is None:
        return None
    if value.strip().replace(".", "", 1).isdigit():
        return float(value)
    return parsedate_to_datetime(value).timestamp() - now_s


def error_body(body: Any) -> dict[str, Any] | None:
    """The error object inside a body, in the shapes that providers use; None when there is none."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    if body.get("object") == "error":
        return body
    return None


def provider_failure(
    provider: str, model: str, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> ParleyError:
    """The error for an answer that is not one: a bad status, or an error object inside a 200.

    A 400 or 422 that names neither context nor policy is the caller's fault: ValidationError.
    """
    error = error_body(body) or {}
    message = str(error.get("message") or body or "no reason given")[:_MAX_WORDS]
    words = f"{error.get('code')} {error.get('type')} {message}".lower()
    fault = _fault(status, words)
    text = f"{provider} {model} answered {status}: {message}"
    if fault is None:
        return ValidationError(text, str(error.get("param") or "request"), context={"status": status})
    wait_s = retry_after_s(headers or {})
    param = "prompt" if fault is Fault.CONTEXT_WINDOW else None
    return ProviderError(text, fault, provider, model, param, wait_s, {"status": status})


def refusal_fault(words: str, status: int) -> Fault:
    """What a 403 or a 404 means: the prompt was moderated, the key is dead, or this model is not served.

    Where the words name neither prompt nor key, the provider itself is taken to be well: one model that a key
    may not use must not cost the others that it may.
    """
    if any(sign in words for sign in POLICY_WORDS):
        return Fault.CONTENT_POLICY
    return Fault.AUTH if status == 403 and any(sign in words for sign in _AUTH) else Fault.NOT_SERVED


def _fault(status: int, words: str) -> Fault | None:
    if status in (403, 404):
        return refusal_fault(words, status)
    if status in (200, 400, 422, 413):
        if any(sign in words for sign in CONTEXT_WORDS):
            return Fault.CONTEXT_WINDOW
        if any(sign in words for sign in POLICY_WORDS):
            return Fault.CONTENT_POLICY
    if status == 200:
        signs = ((_AUTH, Fault.AUTH), (_NOT_SERVED, Fault.NOT_SERVED), (_LIMITED, Fault.RATE_LIMITED))
        found = (fault for some, fault in signs if any(sign in words for sign in some))
        return next(found, Fault.BAD_RESPONSE)
    if status in (400, 422):
        return None
    return _BY_STATUS.get(status, Fault.BAD_RESPONSE)
