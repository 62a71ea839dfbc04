"""What litellm's exceptions mean in our tree, by class name, so that nothing here imports litellm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.engines.openai_faults import CONTEXT_WORDS, POLICY_WORDS, refusal_fault, retry_after_s
from registries.contracts.errors import Fault, ParleyError, ProviderError, ValidationError

# Looked up along the exception's classes, nearest first; names are litellm's and the openai SDK's.
_BY_CLASS: dict[str, Fault | None] = {
    "ContextWindowExceededError": Fault.CONTEXT_WINDOW,
    "ContentPolicyViolationError": Fault.CONTENT_POLICY,
    "PaymentRequiredError": Fault.AUTH,
    "AuthenticationError": Fault.AUTH,
    "BudgetExceededError": Fault.AUTH,
    "RateLimitError": Fault.RATE_LIMITED,
    "Timeout": Fault.TIMEOUT,
    "APITimeoutError": Fault.TIMEOUT,
    "APIConnectionError": Fault.REFUSED,
    "MidStreamFallbackError": Fault.STREAM_CUT,
    "BadRequestError": None,
    "UnprocessableEntityError": None,
}
# litellm hands a lost connection on as a server error of its own making; the words are all that is left.
_LOST = ("connection error", "server disconnected", "connection refused", "cannot connect")
_CUT = ("peer closed", "incomplete message body", "not enough data to satisfy", "payload is not completed")
_MAX_WORDS = 300


def litellm_failure(error: Exception, provider: str, model: str, midstream: bool) -> ParleyError:
    """Our error for one of litellm's; ``midstream`` says that a part of the answer had come already."""
    message = str(getattr(error, "message", "") or error)[:_MAX_WORDS]
    fault = _fault(error, message.lower(), midstream)
    text = f"{provider} {model}: {message}"
    if fault is None:
        return ValidationError(text, "request")
    param = "prompt" if fault is Fault.CONTEXT_WINDOW else None
    return ProviderError(text, fault, provider, model, param, retry_after_s(_headers(error)))


def _fault(error: Exception, words: str, midstream: bool) -> Fault | None:
    status = getattr(error, "status_code", None)
    if status in (403, 404):
        return refusal_fault(words, status)
    if status in (None, 400, 413, 422):
        if any(sign in words for sign in CONTEXT_WORDS):
            return Fault.CONTEXT_WINDOW
        if any(sign in words for sign in POLICY_WORDS):
            return Fault.CONTENT_POLICY
    story = " ".join(f"{type(link).__name__} {link}".lower() for link in _chain(error))
    if any(sign in story for sign in _CUT):
        return Fault.STREAM_CUT
    lost = any(sign in words for sign in _LOST)
    if midstream and (lost or "midstreamfallback" in story):
        return Fault.STREAM_CUT
    if lost and status in (None, 500, 503):
        return Fault.REFUSED
    own = [base.__name__ for base in type(error).__mro__]
    return next((_BY_CLASS[name] for name in own if name in _BY_CLASS), Fault.BAD_RESPONSE)


def _chain(error: BaseException | None) -> list[BaseException]:
    """The exception and its causes, at most twelve."""
    found: list[BaseException] = []
    while error is not None and len(found) < 12:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _headers(error: Exception) -> Mapping[str, str]:
    response: Any = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    return {str(name).title() if name.lower() == "retry-after" else str(name).lower(): str(value)
            for name, value in dict(headers).items()}  # fmt: skip
