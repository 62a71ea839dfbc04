"""What an OpenAI-compatible provider's failure means in our tree."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from registries.contracts.errors import Fault, ParleyError, ProviderError, ValidationError

_BY_STATUS = {
    401: Fault.AUTH,
    402: Fault.AUTH,
    403: Fault.AUTH,
    404: Fault.BAD_RESPONSE,
    408: Fault.TIMEOUT,
    413: Fault.CONTEXT_WINDOW,
    429: Fault.RATE_LIMITED,
    504: Fault.TIMEOUT,
}
_CONTEXT = ("context_length", "context length", "context window", "maximum context", "too many tokens")
_POLICY = ("content_policy", "content policy", "content_filter", "content management policy")
_AUTH = ("invalid_api_key", "insufficient_quota", "authentication_error", "permission_error", "billing")
_LIMITED = ("rate_limit", "rate limit", "overloaded_error")
# Of a provider's own words this much is told; a whole HTML page is not.
_MAX_WORDS = 300


def retry_after_s(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date); None if unreadable."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("Retry-After")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - (time.time() if now_s is None else now_s))
    except (ValueError, TypeError):
        return None


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


def _fault(status: int, words: str) -> Fault | None:
    if status in (200, 400, 422, 413):
        if any(sign in words for sign in _CONTEXT):
            return Fault.CONTEXT_WINDOW
        if any(sign in words for sign in _POLICY):
            return Fault.CONTENT_POLICY
    if status == 200 and any(sign in words for sign in _AUTH):
        return Fault.AUTH
    if status == 200 and any(sign in words for sign in _LIMITED):
        return Fault.RATE_LIMITED
    if status in (400, 422):
        return None
    return _BY_STATUS.get(status, Fault.BAD_RESPONSE)
