"""One gateway call from its first try to its last: the only layer that retries."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from actors.gateway.backoff import JITTER, backoff_s
from actors.gateway.breaker import Allowed, Blocked, Outcome, OutcomeKind, ProbeNeeded
from actors.gateway.breaker_board import BreakerBoard
from actors.gateway.faults import (
    LOADING,
    NextStep,
    deadline_error,
    next_step,
    outcome_kind,
    with_attempts,
)
from actors.gateway.observer import GatewayObserver
from actors.gateway.providers import breaker_key
from actors.gateway.retry_budget import RetryBudget
from actors.gateway.selection import Choice
from registries.contracts.errors import BudgetError, CapacityError, Fault, ParleyError, ProviderError
from registries.contracts.generation import Attempt, Usage
from registries.specs import ModelSpec

FAIR_TRIAL_S = 1.0
FAIR_TRIAL_LATENCIES = 4.0
"""A timeout counts against the provider only if the try had the strategy's whole timeout, or at least this
many seconds and typical latencies: a caller with a tiny deadline must not open a breaker for everyone."""
THROTTLE_S = 1.0
"""Rest after a rate limit that came without Retry-After."""
LEAST_S = 0.05
"""With less time than this left nothing is started: no model answers in it."""
LEASE_MARGIN_S = 5.0
"""A probe's lease outlives its timeout by this much, so that its outcome still counts."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all calls of one gateway share."""

    board: BreakerBoard
    observer: GatewayObserver
    retry_budget: Callable[[str], RetryBudget]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    rng: random.Random


@dataclass(slots=True)
class Try:
    """One admitted try. Once ``begun`` (the caller has a chunk) nothing is retried."""

    spec: ModelSpec
    key: str
    admission: Allowed
    timeout_s: float
    started: float
    begun: bool = False
    ended: bool = False
    tokens: int = 0
    load_s: float = 0.0
    usage: Usage | None = None


@dataclass(slots=True)
class CallSession:
    """Walks the chain of a Choice under one deadline.

    ``admit`` gives the next try or raises the call's final error; TryGuard records how the try went.
    """

    choice: Choice
    request_id: str
    deadline_s: float
    around: Surroundings
    attempts: list[Attempt] = field(default_factory=list)
    started: float = 0.0
    _position: int = 0
    _retries: int = 0
    _rounds: int = 0
    _pause_s: float = 0.0
    _error: ParleyError | None = None
    _blocked: list[Blocked] = field(default_factory=list)
    _loading: ParleyError | None = None
    _waited_for: ParleyError | None = None
    _admitted: set[str] = field(default_factory=set)
    _called: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.started = self.around.clock()

    @property
    def remaining_s(self) -> float:
        """Seconds until the call's deadline."""
        return self.started + self.deadline_s - self.around.clock()

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline is here."""
        return self.remaining_s < LEAST_S

    def out_of_time_error(self, begun: bool = False) -> ParleyError:
        """That the deadline passed; or that a model still loads, where it passed with waiting for that alone.

        ``begun``: a model is answering.
        """
        if self._waited_for is not None and not self._called and not begun:
            return self._waited_for
        return deadline_error(self.deadline_s)

    async def admit(self) -> Try:
        """The next try that time, breakers and the chain allow; raises the final error when there is none."""
        while True:
            if self.out_of_time:
                raise with_attempts(self.out_of_time_error(), self.attempts)
            if self._position >= len(self.choice.models):
                await self._start_over()
                continue
            spec = self.choice.models[self._position]
            key = breaker_key(spec)
            admission = self.around.board.admit(key)
            if self._pause_s and not isinstance(admission, Blocked):
                pause_s, self._pause_s = self._pause_s, 0.0
                await self.around.sleep(pause_s)
                continue
            timeout_s = self._timeout_s()
            if not isinstance(admission, Blocked) and not self._affords(spec, key):
                self._go_on()
                continue
            if isinstance(admission, ProbeNeeded):
                admission = await self.around.board.permit(key, timeout_s + LEASE_MARGIN_S)
            if isinstance(admission, Blocked):
                self._skip(spec, admission)
                continue
            return Try(spec, key, admission, timeout_s, self.around.clock())

    def loaded(self, tried: Try) -> None:
        """The engine of an admitted try is up: from here on its time counts."""
        self._waited_for = None
        now = self.around.clock()
        tried.load_s, tried.started = now - tried.started, now
        tried.timeout_s = self._timeout_s()

    def _timeout_s(self) -> float:
        return min(self.choice.strategy.limits.timeout_s, self.remaining_s)

    def _affords(self, spec: ModelSpec, key: str) -> bool:
        """Pay in for the call's first try at this model; another round's try at it is a retry.

        A model that still loads has not been called: looking at it again costs its provider nothing.
        """
        budget = self.around.retry_budget(key)
        if spec.key not in self._admitted:
            self._admitted.add(spec.key)
            budget.deposit()
            return True
        # A retry within the round was paid for when it was decided on.
        return bool(self._retries) or spec.key not in self._called or budget.withdraw()

    def _skip(self, spec: ModelSpec, blocked: Blocked) -> None:
        self._blocked.append(blocked)
        self._go_on()
        if self._noted(spec, "skipped_open"):
            return
        message = f"{blocked.reason}, {blocked.retry_after_s:.1f} s left"
        self._note(
            Attempt(model=spec.key, provider=spec.provider, outcome="skipped_open", message=message), None
        )

    def _go_on(self) -> None:
        self._position += 1
        self._retries = 0
        self._pause_s = 0.0

    async def _start_over(self) -> None:
        """The chain is used up: wait for what will be there within the deadline, else raise."""
        wait_s = self._worth_waiting()
        if wait_s is None:
            raise with_attempts(self._final_error(), self.attempts)
        await self.around.sleep(wait_s)
        self._position = 0
        self._blocked.clear()
        self._loading = None

    def _worth_waiting(self) -> float | None:
        """Seconds, when the chain ended at models that still load or at short rate limits; None otherwise."""
        if self._loading is not None:
            wait_s = self._loading.retry_after_s or 1.0
            return wait_s if wait_s < self.remaining_s else None
        throttled = [b.retry_after_s for b in self._blocked if b.reason == "throttled"]
        policy = self.choice.strategy.retry
        if not throttled or self._rounds >= policy.max_retries:
            return None
        self._rounds += 1
        wait_s = min(throttled) * (1.0 + JITTER * self.around.rng.random()) + LEAST_S
        return wait_s if wait_s < min(self.remaining_s, policy.max_backoff_s) else None

    def _final_error(self) -> ParleyError:
        if self._error is not None:
            return self._error
        if self._loading is not None:
            return self._loading
        first = self.choice.models[0]
        others = len(self.choice.models) - 1
        chain = f" and {others} fallback{'s' if others > 1 else ''}" if others else ""
        return CapacityError(
            f"the provider of {first.key!r}{chain} rests after failures",
            param="model_key",
            retry_after_s=max(0.1, min((b.retry_after_s for b in self._blocked), default=1.0)),
        )

    def succeeded(self, tried: Try, usage: Usage) -> None:
        """Record an answer."""
        tried.ended, tried.usage = True, usage
        self._report(tried, OutcomeKind.SUCCESS)
        self._note(self._attempt(tried, "ok"), usage)

    def cancelled(self, tried: Try) -> None:
        """Record that the caller went away; says nothing of the provider."""
        if not tried.ended:
            tried.ended = True
            self._report(tried, OutcomeKind.IGNORED)
            self._note(self._attempt(tried, "cancelled"), tried.usage)

    def failed(self, tried: Try, error: ParleyError) -> bool:
        """Record a failure and set the course; False when the error is final."""
        tried.ended = True
        error = self._as_fault(tried, error)
        fault = _fault_of(error)
        kind = outcome_kind(error)
        if fault is Fault.TIMEOUT:
            kind = OutcomeKind.FAILURE if self._fair_trial(tried) else OutcomeKind.IGNORED
        self._report(tried, kind, error)
        loading = isinstance(error, CapacityError) and bool(error.context.get(LOADING))
        if not loading:
            self._called.add(tried.spec.key)
        if not (loading and self._noted(tried.spec, "error")):
            fault_name = fault.value if fault else None
            self._note(self._attempt(tried, "error", fault_name, error.message), tried.usage)
        if loading:
            self._loading = self._waited_for = error
        elif not _says_more(self._error, error):
            self._error = error
        if tried.begun or isinstance(error, BudgetError):
            self._error = error
            return False
        return self._steer(tried, error)

    def final_error(self) -> ParleyError:
        """The error of a call that ended in ``failed``, with its attempts."""
        return with_attempts(self._final_error(), self.attempts)

    def _steer(self, tried: Try, error: ParleyError) -> bool:
        step = next_step(error)
        if step is NextStep.RAISE:
            self._error = error
            return False
        if _fault_of(error) is Fault.RATE_LIMITED:
            self._blocked.append(Blocked("throttled", error.retry_after_s or THROTTLE_S))
        pause_s = self._retry_pause(tried, error) if step is NextStep.RETRY else None
        if pause_s is None:
            self._go_on()
        else:
            self._retries += 1
            self._pause_s = pause_s
        return True

    def _retry_pause(self, tried: Try, error: ParleyError) -> float | None:
        policy = self.choice.strategy.retry
        if self._retries >= policy.max_retries:
            return None
        pause_s = backoff_s(policy, self._retries, self.remaining_s, self.around.rng, error.retry_after_s)
        if pause_s is None or not self.around.retry_budget(tried.key).withdraw():
            return None
        return pause_s

    def _as_fault(self, tried: Try, error: ParleyError) -> ParleyError:
        """An engine that met its deadline while the call has time left is a slow provider."""
        if isinstance(error, BudgetError) and not self.out_of_time:
            return ProviderError(
                f"model {tried.spec.key!r} did not answer within {tried.timeout_s:.1f} s",
                Fault.TIMEOUT,
                tried.spec.provider,
                tried.spec.key,
            )
        return error

    def _fair_trial(self, tried: Try) -> bool:
        fair_s = max(FAIR_TRIAL_S, FAIR_TRIAL_LATENCIES * tried.spec.typical_latency_s)
        return tried.timeout_s >= min(fair_s, self.choice.strategy.limits.timeout_s)

    def _report(self, tried: Try, kind: OutcomeKind, error: ParleyError | None = None) -> None:
        self.around.board.report(
            Outcome(
                key=tried.key,
                kind=kind,
                epoch=tried.admission.epoch,
                permit_id=tried.admission.permit_id,
                retry_after_s=(error.retry_after_s if error else None) or THROTTLE_S,
                cause=error.message if error else "",
            )
        )

    def _noted(self, spec: ModelSpec, outcome: str) -> bool:
        """While a model loads the chain is walked every second; one entry of a kind a model tells it all."""
        return any(a.model == spec.key and a.outcome == outcome and a.fault is None for a in self.attempts)

    def _attempt(
        self, tried: Try, outcome: str, fault: str | None = None, message: str | None = None
    ) -> Attempt:
        return Attempt.model_validate(
            {
                "model": tried.spec.key,
                "provider": tried.spec.provider,
                "outcome": outcome,
                "latency_s": self.around.clock() - tried.started,
                "fault": fault,
                "message": message,
            }
        )

    def _note(self, attempt: Attempt, usage: Usage | None) -> None:
        self.attempts.append(attempt)
        self.around.observer.on_attempt(attempt, usage, self.request_id)


def _fault_of(error: ParleyError) -> Fault | None:
    """The deadline is the provider's timeout too: it had the time until then."""
    if isinstance(error, BudgetError):
        return Fault.TIMEOUT
    return error.fault if isinstance(error, ProviderError) else None


def _says_more(kept: ParleyError | None, new: ParleyError) -> bool:
    """A failure explains more than a full queue, or a model that can never be loaded, later in the chain."""
    if isinstance(new, CapacityError) and not new.retryable:
        return kept is not None
    return isinstance(kept, ProviderError) and isinstance(new, CapacityError)
