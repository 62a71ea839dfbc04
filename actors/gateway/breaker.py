"""One circuit breaker as a pure state machine: no tasks, no I/O, clock and rng injected."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class BreakerState(StrEnum):
    """CLOSED lets calls through, OPEN lets none, HALF_OPEN lets one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class OutcomeKind(StrEnum):
    """How a try counts. IGNORED: the caller's fault or a cancellation, which say nothing of the provider."""

    SUCCESS = "success"
    FAILURE = "failure"
    THROTTLED = "throttled"
    AUTH = "auth"
    IGNORED = "ignored"


SEVERITY = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
PROBE_HINT_S = 1.0
"""Longest wait told to callers while a probe runs: its answer usually comes long before its lease ends."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """``auth_open_s``: a refused key does not heal in a minute. ``open_jitter``: fraction added at random."""

    max_failures: int = 3
    open_s: float = 60.0
    auth_open_s: float = 600.0
    open_jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """A breaker as it travels between processes; durations in seconds left, because clocks are not shared."""

    key: str
    state: BreakerState
    epoch: int
    failures: int = 0
    open_for_s: float = 0.0
    throttled_for_s: float = 0.0
    permit_id: str | None = None
    permit_for_s: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one try taught about the breaker ``key``; ``epoch`` and ``permit_id`` come from its admission."""

    key: str
    kind: OutcomeKind
    epoch: int
    permit_id: str | None = None
    retry_after_s: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The call may go; its outcome must carry this epoch (and permit)."""

    epoch: int
    permit_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeNeeded:
    """The rest is over: one caller may try, with a permit."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The call may not go; seconds until it is worth asking again."""

    reason: Literal["open", "probing", "throttled"]
    retry_after_s: float


Admission = Allowed | ProbeNeeded | Blocked


class Breaker:
    """CLOSED → OPEN after ``max_failures`` consecutive failures → HALF_OPEN with one probe → CLOSED or OPEN.

    Every transition raises ``epoch``; an outcome of another epoch changes no state, so a late answer can
    neither reopen nor close. A rate limit throttles until max(old, new) deadline and never opens.
    """

    def __init__(
        self,
        key: str,
        policy: BreakerPolicy,
        clock: Callable[[], float],
        rng: random.Random,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.key = key
        self.state = BreakerState.CLOSED
        self.epoch = 0
        self.failures = 0
        self.cause = ""
        self._policy = policy
        self._clock = clock
        self._rng = rng
        counter = itertools.count()
        self._new_id = new_id or (lambda: f"{key}#{next(counter)}")
        self._open_until = 0.0
        self._throttled_until = 0.0
        self._permit_id: str | None = None
        self._permit_until = 0.0

    def admit(self) -> Admission:
        """Whether a call may go now; changes nothing."""
        now = self._clock()
        if self._throttled_until > now:
            return Blocked("throttled", self._throttled_until - now)
        if self.state is BreakerState.CLOSED:
            return Allowed(self.epoch)
        if self.state is BreakerState.OPEN and self._open_until > now:
            return Blocked("open", self._open_until - now)
        if self.state is BreakerState.HALF_OPEN and self._permit_id and self._permit_until > now:
            return Blocked("probing", min(self._permit_until - now, PROBE_HINT_S))
        return ProbeNeeded()

    def grant(self, lease_s: float) -> Allowed | Blocked:
        """The one permit of a half-open window, valid ``lease_s``; a CLOSED breaker just allows."""
        admission = self.admit()
        if not isinstance(admission, ProbeNeeded):
            return admission
        if self.state is BreakerState.OPEN:
            self._move(BreakerState.HALF_OPEN, self.cause)
        self._permit_id = self._new_id()
        self._permit_until = self._clock() + lease_s
        return Allowed(self.epoch, self._permit_id)

    def record(self, outcome: Outcome) -> bool:
        """Take in an outcome; True when anything that travels changed."""
        if outcome.kind is OutcomeKind.THROTTLED:
            throttled = self._throttle(outcome.retry_after_s)
            return self._release(outcome) or throttled
        if outcome.epoch != self.epoch or self.state is BreakerState.OPEN:
            return False
        if self.state is BreakerState.HALF_OPEN:
            return self._probe_ended(outcome)
        return self._counted(outcome)

    def _counted(self, outcome: Outcome) -> bool:
        if outcome.kind is OutcomeKind.SUCCESS:
            changed, self.failures = self.failures > 0, 0
            return changed
        if outcome.kind is OutcomeKind.AUTH:
            self._open(self._policy.auth_open_s, outcome.cause)
            return True
        if outcome.kind is OutcomeKind.FAILURE:
            self.failures += 1
            if self.failures >= self._policy.max_failures:
                self._open(self._policy.open_s, outcome.cause)
            return True
        return False

    def _probe_ended(self, outcome: Outcome) -> bool:
        if outcome.permit_id is None or outcome.permit_id != self._permit_id:
            return False
        if outcome.kind is OutcomeKind.SUCCESS:
            self._move(BreakerState.CLOSED, "")
            return True
        if outcome.kind in (OutcomeKind.FAILURE, OutcomeKind.AUTH):
            long = outcome.kind is OutcomeKind.AUTH
            self._open(self._policy.auth_open_s if long else self._policy.open_s, outcome.cause)
            return True
        return self._release(outcome)

    def _release(self, outcome: Outcome) -> bool:
        if outcome.permit_id is None or outcome.permit_id != self._permit_id:
            return False
        self._permit_id, self._permit_until = None, 0.0
        return True

    def _throttle(self, retry_after_s: float) -> bool:
        until = self._clock() + retry_after_s
        changed = until > self._throttled_until
        self._throttled_until = max(self._throttled_until, until)
        return changed

    def _open(self, open_s: float, cause: str) -> None:
        self._move(BreakerState.OPEN, cause)
        self._open_until = self._clock() + open_s * (1.0 + self._policy.open_jitter * self._rng.random())

    def _move(self, state: BreakerState, cause: str) -> None:
        self.state = state
        self.epoch += 1
        self.cause = cause
        self._permit_id, self._permit_until = None, 0.0
        if state is BreakerState.CLOSED:
            self.failures, self._open_until = 0, 0.0

    def to_record(self) -> BreakerRecord:
        """The state as it travels."""
        now = self._clock()
        return BreakerRecord(
            key=self.key,
            state=self.state,
            epoch=self.epoch,
            failures=self.failures,
            open_for_s=max(0.0, self._open_until - now) if self.state is BreakerState.OPEN else 0.0,
            throttled_for_s=max(0.0, self._throttled_until - now),
            permit_id=self._permit_id,
            permit_for_s=max(0.0, self._permit_until - now),
            cause=self.cause,
        )

    def merge(self, record: BreakerRecord, authoritative: bool = False) -> bool:
        """Take over another process's state: the higher epoch wins, at equal epochs the more severe state.

        ``authoritative`` (a snapshot of GatewayState) also sets the failure count of the same state.
        Returns True when anything that travels changed.
        """
        now = self._clock()
        throttled = record.throttled_for_s > 0 and self._throttle(record.throttled_for_s)
        ahead = (record.epoch, SEVERITY[record.state]) > (self.epoch, SEVERITY[self.state])
        if not ahead:
            return self._merge_same(record, authoritative) or throttled
        self.state, self.epoch, self.failures = record.state, record.epoch, record.failures
        self.cause = record.cause
        self._open_until = now + record.open_for_s
        self._permit_id, self._permit_until = record.permit_id, now + record.permit_for_s
        return True

    def _merge_same(self, record: BreakerRecord, authoritative: bool) -> bool:
        if record.epoch != self.epoch or record.state is not self.state:
            return False
        before = (self.failures, self._permit_id)
        if self.state is BreakerState.CLOSED:
            self.failures = record.failures if authoritative else max(self.failures, record.failures)
        if self.state is BreakerState.HALF_OPEN and (authoritative or self._permit_id is None):
            self._permit_id = record.permit_id
            self._permit_until = self._clock() + record.permit_for_s
        return before != (self.failures, self._permit_id)
