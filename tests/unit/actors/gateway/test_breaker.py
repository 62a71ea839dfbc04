"""The breaker as a state machine, by example and by hypothesis."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.gateway.breaker import (
    Allowed,
    Blocked,
    Breaker,
    BreakerPolicy,
    BreakerRecord,
    BreakerState,
    Outcome,
    OutcomeKind,
    ProbeNeeded,
)
from tests.unit.actors.gateway.played import Clock

POLICY = BreakerPolicy(max_failures=3, open_s=60.0, auth_open_s=600.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("p", POLICY, clock, random.Random(0))


def outcome(
    kind: OutcomeKind, epoch: int, permit_id: str | None = None, retry_after_s: float = 0.0
) -> Outcome:
    return Outcome("p", kind, epoch, permit_id, retry_after_s)


def fail(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        breaker.record(outcome(OutcomeKind.FAILURE, breaker.epoch))


def test_consecutive_failures_open_and_a_success_between_starts_over(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.record(outcome(OutcomeKind.SUCCESS, 0))
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 1)
    assert breaker.state is BreakerState.OPEN and breaker.epoch == 1
    assert breaker.admit() == Blocked("open", 60.0)


def test_a_late_failure_of_an_older_epoch_does_not_reopen(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 60
    permit = breaker.grant(10)
    assert isinstance(permit, Allowed)
    breaker.record(outcome(OutcomeKind.SUCCESS, permit.epoch, permit.permit_id))
    for _ in range(9):
        assert not breaker.record(outcome(OutcomeKind.FAILURE, 0))
    assert breaker.state is BreakerState.CLOSED and breaker.failures == 0


def test_a_late_success_of_an_older_epoch_does_not_close(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    assert not breaker.record(outcome(OutcomeKind.SUCCESS, 0))
    clock.now += 60
    breaker.grant(10)
    assert not breaker.record(outcome(OutcomeKind.SUCCESS, breaker.epoch))
    assert breaker.state is BreakerState.HALF_OPEN


def test_one_permit_until_its_lease_ends(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 60
    assert isinstance(breaker.admit(), ProbeNeeded)
    first = breaker.grant(10)
    assert isinstance(first, Allowed) and isinstance(breaker.grant(10), Blocked)
    clock.now += 10
    second = breaker.grant(10)
    assert isinstance(second, Allowed) and second.permit_id != first.permit_id
    assert not breaker.record(outcome(OutcomeKind.SUCCESS, first.epoch, first.permit_id)), (
        "the lease was lost"
    )
    assert breaker.record(outcome(OutcomeKind.FAILURE, second.epoch, second.permit_id))
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit() == Blocked("open", 60.0)


def test_a_probe_that_says_nothing_gives_the_permit_back(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 60
    permit = breaker.grant(10)
    assert isinstance(permit, Allowed)
    breaker.record(outcome(OutcomeKind.IGNORED, permit.epoch, permit.permit_id))
    assert isinstance(breaker.admit(), ProbeNeeded)


def test_a_rate_limit_throttles_until_the_later_deadline(breaker: Breaker, clock: Clock) -> None:
    breaker.record(outcome(OutcomeKind.THROTTLED, 0, retry_after_s=5))
    breaker.record(outcome(OutcomeKind.THROTTLED, 0, retry_after_s=30))
    breaker.record(outcome(OutcomeKind.THROTTLED, 0, retry_after_s=1))
    assert breaker.admit() == Blocked("throttled", 30.0)
    assert breaker.state is BreakerState.CLOSED
    clock.now += 30
    assert breaker.admit() == Allowed(0)


def test_jitter_only_ever_lengthens_the_rest(clock: Clock) -> None:
    policy = BreakerPolicy(max_failures=1, open_s=60.0, open_jitter=0.1)
    breaker = Breaker("p", policy, clock, random.Random(3))
    fail(breaker, 1)
    blocked = breaker.admit()
    assert isinstance(blocked, Blocked) and 60.0 < blocked.retry_after_s <= 66.0


def test_a_copy_in_another_process_behaves_alike(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    other = Breaker("p", POLICY, clock, random.Random(0))
    assert other.merge(breaker.to_record())
    assert other.admit() == Blocked("open", 60.0)
    assert not other.merge(breaker.to_record()), "the same state twice is no news"
    assert not other.merge(BreakerRecord("p", BreakerState.CLOSED, 0)), "an older epoch is no news"


def test_at_equal_epochs_the_more_severe_state_wins_in_any_order(clock: Clock) -> None:
    records = [BreakerRecord("p", s, 4, open_for_s=9.0) for s in BreakerState]
    for order in (records, records[::-1]):
        merged = Breaker("p", POLICY, clock, random.Random(0))
        for record in order:
            merged.merge(record)
        assert merged.state is BreakerState.OPEN


def test_only_the_authority_lowers_a_failure_count(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.merge(BreakerRecord("p", BreakerState.CLOSED, 0, failures=1))
    assert breaker.failures == 2
    breaker.merge(BreakerRecord("p", BreakerState.CLOSED, 0, failures=1), authoritative=True)
    assert breaker.failures == 1


class BreakerMachine(RuleBasedStateMachine):
    """Random callers, late answers, lost leases and time; a plain model counts along."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker("p", POLICY, self.clock, random.Random(0))
        self.calls: list[Allowed] = []
        self.epoch = 0
        self.consecutive = 0
        self.throttled_until = 0.0
        self.opened_at: float | None = None

    def _seen(self) -> None:
        assert self.breaker.epoch >= self.epoch, "epochs only rise"
        self.epoch = self.breaker.epoch

    @rule()
    def call(self) -> None:
        admission = self.breaker.admit()
        if isinstance(admission, Allowed):
            assert self.breaker.state is BreakerState.CLOSED
            assert self.clock.now >= self.throttled_until
            self.calls.append(admission)

    @rule(lease_s=st.floats(1, 30))
    def probe(self, lease_s: float) -> None:
        needed = isinstance(self.breaker.admit(), ProbeNeeded)
        granted = self.breaker.grant(lease_s)
        if needed:
            assert isinstance(granted, Allowed) and granted.permit_id
            assert isinstance(self.breaker.grant(lease_s), Blocked), "never two permits"
            assert self.opened_at is not None and self.clock.now >= self.opened_at + POLICY.open_s
            self.calls.append(granted)
        elif isinstance(granted, Allowed):
            assert granted.permit_id is None
        self._seen()

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), kind=st.sampled_from(OutcomeKind), wait_s=st.floats(0, 100))
    def answer(self, data: st.DataObject, kind: OutcomeKind, wait_s: float) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        before = (self.breaker.state, self.breaker.epoch)
        self.breaker.record(outcome(kind, call.epoch, call.permit_id, wait_s))
        self._model(before, call, kind, wait_s)
        self._seen()

    def _model(
        self, before: tuple[BreakerState, int], call: Allowed, kind: OutcomeKind, wait_s: float
    ) -> None:
        state, epoch = before
        if kind is OutcomeKind.THROTTLED:
            self.throttled_until = max(self.throttled_until, self.clock.now + wait_s)
        if call.epoch != epoch:
            assert (self.breaker.state, self.breaker.epoch) == before, "late answers change no state"
            return
        if kind in (OutcomeKind.IGNORED, OutcomeKind.THROTTLED):
            assert (self.breaker.state, self.breaker.epoch) == before
        elif state is BreakerState.CLOSED:
            self.consecutive = 0 if kind is OutcomeKind.SUCCESS else self.consecutive + 1
            opens = self.consecutive >= POLICY.max_failures or kind is OutcomeKind.AUTH
            assert (self.breaker.state is BreakerState.OPEN) == opens
        if state is not BreakerState.OPEN and self.breaker.state is BreakerState.OPEN:
            self.opened_at, self.consecutive = self.clock.now, 0
        if self.breaker.state is BreakerState.CLOSED and state is BreakerState.HALF_OPEN:
            self.consecutive = 0

    @rule(seconds=st.sampled_from([0.5, 20.0, 61.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def forget_oldest_call(self) -> None:
        """Its process died: no outcome ever comes, and the lease must end by itself."""
        if self.calls:
            self.calls.pop(0)

    @rule()
    def reborn_elsewhere(self) -> None:
        """The actor dies; a new one is built from a caller's record."""
        record = self.breaker.to_record()
        before = self.breaker.admit()
        self.breaker = Breaker("p", POLICY, self.clock, random.Random(1), lambda: f"reborn-{self.clock.now}")
        self.breaker.merge(record)
        assert self.breaker.to_record() == record
        assert type(self.breaker.admit()) is type(before)

    @invariant()
    def is_never_stuck(self) -> None:
        record = self.breaker.to_record()
        wait_s = max(record.open_for_s, record.throttled_for_s, record.permit_for_s)
        probe = Breaker("p", POLICY, Clock(self.clock.now), random.Random(0))
        probe.merge(record)
        later = Clock(self.clock.now + wait_s + 0.001)
        probe._clock = later
        assert not isinstance(probe.admit(), Blocked), "every rest ends by itself"


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
