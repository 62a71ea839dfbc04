"""What an error means: for the breaker, and for the next step of the call."""

from __future__ import annotations

from enum import StrEnum

from actors.gateway.breaker import OutcomeKind
from registries.contracts.engine import REPLICA_LOST
from registries.contracts.errors import (
    BudgetError,
    CapacityError,
    Fault,
    ParleyError,
    ProviderError,
)
from registries.contracts.generation import Attempt
from registries.specs import ModelSpec

NOT_LOADED = "not_loaded"
"""Context flag: the model could not be loaded. Serve has given up, so asking again is of no use."""
LOADING = "loading"
"""Context flag of a CapacityError: the model's replicas are not up yet."""
LOADING_RETRY_AFTER_S = 1.0
"""Interval at which a model that still loads is looked at again."""
FULL = "full"
"""Context flag of a CapacityError: the model's queue is full, which passes as it works."""

_COUNTED = frozenset({Fault.TIMEOUT, Fault.REFUSED, Fault.BAD_RESPONSE, Fault.STREAM_CUT})


class NextStep(StrEnum):
    """RETRY the same provider after a pause, go on to the NEXT of the chain, or give up (RAISE)."""

    RETRY = "retry"
    NEXT = "next"
    RAISE = "raise"


def outcome_kind(error: BaseException) -> OutcomeKind:
    """How the breaker counts this error; the caller's own faults and cancellations never count."""
    if not isinstance(error, ProviderError) or error.context.get(REPLICA_LOST):
        return OutcomeKind.IGNORED
    if error.fault is Fault.RATE_LIMITED:
        return OutcomeKind.THROTTLED
    if error.fault is Fault.AUTH:
        return OutcomeKind.AUTH
    return OutcomeKind.FAILURE if error.fault in _COUNTED else OutcomeKind.IGNORED


def next_step(error: ParleyError) -> NextStep:
    """What to do after a failed try, when time and retries allow.

    A full queue, a refused key or a rate limit is not cured by asking the same provider again soon, so the
    chain goes on (a rate limit is waited for at the chain's end); a prompt too long here may fit the next,
    and where one model is not served another may be.
    """
    if isinstance(error, CapacityError) or error.context.get(NOT_LOADED):
        return NextStep.NEXT
    if not isinstance(error, ProviderError) or error.fault is Fault.CONTENT_POLICY:
        return NextStep.RAISE
    if error.fault in (Fault.AUTH, Fault.NOT_SERVED, Fault.CONTEXT_WINDOW, Fault.RATE_LIMITED):
        return NextStep.NEXT
    return NextStep.RETRY


def as_provider_error(error: Exception, spec: ModelSpec) -> ParleyError:
    """The error in terms of our tree; unknown ones become a bad response that tells no internals."""
    if isinstance(error, ParleyError):
        return error
    failure = ProviderError(
        f"model {spec.key!r} failed unexpectedly ({type(error).__name__})",
        Fault.BAD_RESPONSE,
        spec.provider,
        spec.key,
    )
    failure.__cause__ = error
    return failure


def with_attempts(error: ParleyError, attempts: list[Attempt]) -> ParleyError:
    """The same error, carrying every try in ``context["attempts"]`` (Attempt as JSON), pickling included."""
    facts = [a.model_dump(mode="json") for a in attempts]
    for store in (error.context, error.args[-1] if error.args else None):
        if isinstance(store, dict):
            store["attempts"] = facts
    return error


def still_loading(spec: ModelSpec, where: str = "") -> CapacityError:
    """The model's engine is not up yet, which is nobody's fault; ``where`` shows how far it is."""
    told = f"model {spec.key!r} is still loading{where}"
    return CapacityError(told, retry_after_s=LOADING_RETRY_AFTER_S, context={LOADING: True})


def deadline_error(deadline_s: float) -> BudgetError:
    """The request's own deadline passed."""
    return BudgetError(f"the deadline of {deadline_s:g} s passed before an answer", param="deadline_s")
