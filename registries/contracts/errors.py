"""The one error tree of the runtime.

Every error carries a stable ``code``, says whether a retry can help, and survives pickling: all state
goes positionally to ``super().__init__`` because keyword-only exceptions do not unpickle across Ray
processes (ray#52660).

    ParleyError
    ├── ValidationError    the caller's input is wrong; the same call fails again
    │   └── KeyReused      an Idempotency-Key that was given with another body before
    ├── Unauthorized       no key, or a wrong one
    ├── NotFound           the named thing does not exist
    ├── Conflict           the thing exists in a state that forbids this
    │   └── LeaseLost      another process has taken the run over; this one must stop
    ├── CapacityError      we are full, or nothing fits the constraints; later may work
    ├── BudgetError        money, tokens or the deadline ran out
    ├── ProviderError      a model's provider failed (see Fault)
    ├── ToolError          a tool failed
    ├── StoreError         the database cannot be reached or written
    │   └── StoreFull      the database's disk or size limit is full
    ├── CancelledRun       somebody asked for the end of this run
    └── InternalError      our own bug; the message never carries internals
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from registries.contracts.well_formed import well_formed


class Fault(StrEnum):
    """The class of a provider's fault; decides on retries, breaker and HTTP status."""

    TIMEOUT = "timeout"
    REFUSED = "refused"
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    BAD_RESPONSE = "bad_response"
    STREAM_CUT = "stream_cut"
    CONTEXT_WINDOW = "context_window"
    CONTENT_POLICY = "content_policy"
    NOT_SERVED = "not_served"
    """The provider works, but not this model, or not for this key: another model may."""


class ParleyError(Exception):
    """Root of the tree.

    ``param`` names the field or file at fault, ``retry_after_s`` is in seconds, ``context`` holds JSON
    values for logs and must never hold secrets. ``retryable`` may be set on one error; pickling keeps it.
    """

    code: ClassVar[str] = "internal"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        # It may repeat a provider's words, and goes into documents that must be UTF-8.
        message = well_formed(message)
        super().__init__(message, param, retry_after_s, dict(context or {}))
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.context: dict[str, Any] = dict(context or {})

    def __str__(self) -> str:
        return self.message


class ValidationError(ParleyError):
    """The request, file or setting is wrong; ``param`` names where."""

    code = "invalid_request"


class Unauthorized(ParleyError):
    """No key, or a key that is not ours."""

    code = "unauthorized"


class NotFound(ParleyError):
    """The named run, model, flow or route does not exist."""

    code = "not_found"


class Conflict(ParleyError):
    """The thing exists, but its state forbids this action."""

    code = "conflict"


class LeaseLost(Conflict):
    """This process no longer holds the run: its lease ran out, was taken over, or the run has ended."""

    code = "lease_lost"


class KeyReused(ValidationError):
    """The same Idempotency-Key came with another request."""

    code = "idempotency_key_reused"


class CapacityError(ParleyError):
    """Queues are full, or no model fits the constraints right now."""

    code = "capacity"
    retryable = True


class BudgetError(ParleyError):
    """Money, tokens or the deadline of the request ran out."""

    code = "budget_exceeded"


class ProviderError(ParleyError):
    """A provider failed; unlike CapacityError the request had left the runtime.

    ``fault`` classes it, ``provider`` and ``model`` name it. Timeouts, refused connections, bad
    responses, cut streams and rate limits are retryable; auth, context, policy and not_served are not.
    """

    code = "provider_error"
    _RETRYABLE: ClassVar[frozenset[Fault]] = frozenset(
        {Fault.TIMEOUT, Fault.REFUSED, Fault.RATE_LIMITED, Fault.BAD_RESPONSE, Fault.STREAM_CUT}
    )

    def __init__(
        self,
        message: str,
        fault: Fault = Fault.BAD_RESPONSE,
        provider: str = "",
        model: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, param, retry_after_s, context)
        self.args = (message, Fault(fault), provider, model, param, retry_after_s, dict(context or {}))
        self.fault = Fault(fault)
        self.provider = provider
        self.model = model
        self.retryable = self.fault in self._RETRYABLE


class ToolError(ParleyError):
    """A tool failed; the run may go on without it."""

    code = "tool_error"


class StoreError(ParleyError):
    """The database cannot be reached or written; nothing was acknowledged."""

    code = "store_unavailable"
    retryable = True


class StoreFull(StoreError):
    """The database can be read but takes nothing more; nothing was acknowledged."""

    code = "store_full"


class CancelledRun(ParleyError):
    """The run was cancelled by its owner (asyncio.CancelledError is the mechanism, this is the fact)."""

    code = "cancelled"


class InternalError(ParleyError):
    """A fault of ours; the log has the cause under the request_id, the user does not."""

    code = "internal"


ALL_ERRORS: tuple[type[ParleyError], ...] = (
    ValidationError,
    Unauthorized,
    NotFound,
    Conflict,
    LeaseLost,
    KeyReused,
    CapacityError,
    BudgetError,
    ProviderError,
    ToolError,
    StoreError,
    StoreFull,
    CancelledRun,
    InternalError,
)
