"""Any sequence of what may happen to runs, against a model of a few lines."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, Lease
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, LeaseLost, ValidationError
from registries.contracts.runs import TERMINAL_EVENTS, TERMINAL_STATUSES, Decision, RunStatus
from tests.chaos.engine.scale import scaled
from tests.conformance.stores.sample_runs import LONG_S, WAITING, end, key, new_run, write

MAX_DEATHS = 3
MOST_RUNS = 4
"""Under way at once in an example: few, so that much happens to each."""
_FINAL = ("completed", "cancelled")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
_STEPS = (
    *("accept", "accept", "claim", "claim", "claim_next", "commit", "finish", "wait", "wait", "release"),
    *("renew", "cancel", "resume", "restart", "release_orphans"),
)
_step = st.tuples(st.sampled_from(_STEPS), st.integers(0, 5), st.booleans())


@dataclass
class Known:
    """What the model says of one run.

    ``place`` is its place in the queue; ``expired``: its lease has run out, whoever asks may have it.
    """

    run_id: str
    place: int
    status: RunStatus = "queued"
    events: list[str] = field(default_factory=lambda: ["run.queued"])
    token: int = 0
    attempts: int = 0
    deaths: int = 0
    expired: bool = False
    marked: bool = False
    leases: list[Lease] = field(default_factory=list)

    def to(self, status: RunStatus, *types: str) -> None:
        """A change of status with its events; nobody asks a run that stopped to stop."""
        self.status = status
        self.events += types
        if self.marked and status in ("queued", "waiting"):
            self.status = "cancelled"
            self.events.append("run.cancelled")

    def offered(self) -> str:
        """What becomes of the run when somebody claims it: "taken", "ended" or "" (not to be had)."""
        if self.status == "queued":
            return "taken"
        if self.status != "running" or not self.expired:
            return ""
        if self.marked:
            self.to("cancelled", "run.cancelled")
            return "ended"
        self.deaths += 1
        if self.deaths >= MAX_DEATHS:
            self.to("failed", "run.failed")
            return "ended"
        return "taken"

    def take(self, claimed: ClaimedRun, expired: bool) -> None:
        """The claim, checked: a token above all that were given out."""
        assert claimed.lease.token > self.token
        assert claimed.last_seq == len(self.events)
        self.token, self.status, self.expired = claimed.lease.token, "running", expired
        self.attempts += 1
        assert claimed.order.attempt == self.attempts
        self.leases.append(claimed.lease)


class RunLives(RuleBasedStateMachine):
    """Leases are long, or have run out when they begin."""

    store: Store
    run_now: Run
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.example = next(self.numbers)
        self.runs: list[Known] = []

    # One rule, many steps: by itself Hypothesis uses few rules in an example, and a life needs most of them.
    @rule(steps=st.lists(_step, min_size=15, max_size=30))
    def live(self, steps: list[tuple[str, int, bool]]) -> None:
        for what, pick, flag in steps:
            getattr(self, what)(pick, flag)
            self.the_store_agrees()

    # -- what happens

    def accept(self, pick: int, keyed: bool) -> None:
        if sum(run.status not in _FINAL for run in self.runs) == MOST_RUNS:
            return
        run = Known(f"{self.example:04}-{len(self.runs):02}", next(self.numbers))
        with_key = key(f"{self.example}-{len(self.runs)}") if keyed else None
        assert self.run_now(self.store.accept(new_run(run.run_id, key=with_key))).created
        if keyed:
            again = self.run_now(self.store.accept(new_run(f"{run.run_id}-again", key=with_key)))
            assert (again.run_id, again.created) == (run.run_id, False)
        self.runs.append(run)

    def claim(self, pick: int, expired: bool) -> None:
        if run := self._some(pick, "queued", "running"):
            offered = run.offered()
            claimed = self.run_now(
                self.store.claim(run.run_id, self._owner(), self._ttl(expired), MAX_DEATHS)
            )
            assert (claimed is not None) == (offered == "taken")
            if claimed is not None:
                run.take(claimed, expired)

    def _owner(self) -> str:
        """Another one each time: who takes its own run again has not died."""
        return f"one {next(self.numbers)}"

    def claim_next(self, limit: int, expired: bool) -> None:
        dead = [run for run in self.runs if run.status == "running" and run.expired]
        claimed = self.run_now(self.store.claim_next(self._owner(), self._ttl(expired), MAX_DEATHS, limit))
        by_id = {run.lease.run_id: run for run in claimed}
        assert len(by_id) == len(claimed) <= limit
        if limit:
            # Which of several dead owners' runs comes first is the database's choice; how many is not.
            for run in dead:
                ended = self.run_now(self.store.get(run.run_id, "default"))["status"] != "running"
                if run.run_id in by_id or ended:
                    assert run.offered() == ("ended" if ended else "taken")
        queued = [run for run in self.runs if run.status == "queued" and run not in dead]
        line = [run.run_id for run in sorted(queued, key=lambda run: run.place)]
        room = limit - sum(run.run_id in by_id for run in dead)
        assert line[:room] == [run_id for run_id in by_id if run_id in line]
        for run_id, one in by_id.items():
            self._known(run_id).take(one, expired)

    def commit(self, pick: int, last: bool) -> None:
        def act(run: Known, lease: Lease) -> Coroutine[Any, Any, None]:
            events = write(lease, len(run.events) + 1, "node.started", "node.completed")
            return self.store.commit(lease, events)

        self._as_holder(pick, last, act, "running", "node.started", "node.completed")

    def finish(self, pick: int, last: bool) -> None:
        status: RunStatus = ("failed", "failed", "completed", "cancelled")[pick % 4]

        def act(run: Known, lease: Lease) -> Coroutine[Any, Any, None]:
            claimed = ClaimedRun(new_run(run.run_id).order, "v1", {}, lease, len(run.events))
            return end(self.store, claimed, status)

        self._as_holder(pick, last, act, status, f"run.{status}")

    def wait(self, pick: int, last: bool) -> None:
        def act(run: Known, lease: Lease) -> Coroutine[Any, Any, None]:
            return self.store.wait(lease, WAITING, write(lease, len(run.events) + 1, "run.waiting"))

        self._as_holder(pick, last, act, "waiting", "run.waiting")

    def release(self, pick: int, last: bool) -> None:
        def act(run: Known, lease: Lease) -> Coroutine[Any, Any, None]:
            return self.store.release(lease, write(lease, len(run.events) + 1, "run.released"))

        self._as_holder(pick, last, act, "queued", "run.released")

    def renew(self, pick: int, expired: bool) -> None:
        leases = [lease for run in self.runs for lease in run.leases]
        renewer = self.store.open_renewer()
        renewal = renewer.renew(leases, self._ttl(expired))
        renewer.close()
        held = [run for run in self.runs if run.status == "running"]
        assert renewal.held == {run.leases[-1] for run in held}
        assert renewal.cancelled == {run.run_id for run in held if run.marked}
        for run in held:
            run.expired = expired

    def cancel(self, pick: int, flag: bool) -> None:
        if run := self._some(pick, "queued", "running", "waiting"):
            asked = self.store.cancel(run.run_id, "default")
            if run.status in ("completed", "failed"):
                self._refused(asked, Conflict)
                return
            answer = self.run_now(asked)
            if run.status == "running":
                run.marked = True
            elif run.status != "cancelled":
                run.to("cancelled", "run.cancelled")
            assert answer == run.status

    def resume(self, pick: int, flag: bool) -> None:
        if run := self._some(pick, "waiting"):
            asked = self.store.resume(run.run_id, "default", Decision(action="approve"), 60.0)
            if run.status == "waiting":
                assert self.run_now(asked).created
                run.place = next(self.numbers)
                run.to("queued", "run.resumed")
            else:
                self._refused(asked, Conflict)

    def restart(self, pick: int, flag: bool) -> None:
        if run := self._some(pick, "failed"):
            asked = self.store.restart(run.run_id, "default", 60.0)
            if run.status == "failed":
                assert self.run_now(asked).created
                run.marked, run.deaths, run.place = False, 0, next(self.numbers)
                run.to("queued", "run.restarted")
            else:
                self._refused(asked, ValidationError)

    def release_orphans(self, pick: int, flag: bool) -> None:
        mine = flag or pick > 1
        gone = [] if mine else [run for run in self.runs if run.status == "running"]
        assert self.run_now(self.store.release_orphans("on" if mine else "another")) == len(gone)
        for run in gone:
            run.to("queued", "run.released")

    # -- what must hold

    def the_store_agrees(self, everywhere: bool = False) -> None:
        for run in self.runs if everywhere else self.runs[-2 * MOST_RUNS :]:
            stored = self.run_now(self.store.get(run.run_id, "default"))
            events = self.run_now(self.store.events(run.run_id, "default"))
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.type for event in events] == run.events
            assert stored["last_seq"] == len(events)
            assert (stored["status"], stored["attempts"]) == (run.status, run.attempts)
            assert (stored["result"] is not None) == (run.status in TERMINAL_STATUSES)
            lives = " ".join(run.events).split("run.restarted")
            ends = [sum(type in TERMINAL_EVENTS for type in life.split()) for life in lives]
            assert ends[:-1] == [1] * (len(lives) - 1)
            assert ends[-1] == (run.status in TERMINAL_STATUSES)

    def teardown(self) -> None:
        try:
            self.the_store_agrees(everywhere=True)
        finally:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        """Of one database for all examples: nothing of this one, a failed one too, may be had by the next."""
        if self.runs:
            self.run_now(self.store.release_orphans("nobody"))
            for run in self.runs:
                stored = self.run_now(self.store.get(run.run_id, "default"))
                if stored["status"] not in TERMINAL_STATUSES:
                    self.run_now(self.store.cancel(run.run_id, "default"))

    # -- parts of the rules

    def _as_holder(
        self,
        pick: int,
        last: bool,
        act: Callable[[Known, Lease], Coroutine[Any, Any, None]],
        status: RunStatus,
        *types: str,
    ) -> None:
        """As whoever holds or has ever held the run; only the last holder of a running one may."""
        run = self._some(pick, "running")
        if run is None or not run.leases:
            return
        lease = run.leases[-1 if last else 0]
        if run.status == "running" and lease.token == run.token:
            self.run_now(act(run, lease))
            run.to(status, *types)
            if "node.completed" in types:
                run.deaths = 0
        else:
            self._refused(act(run, lease), LeaseLost)

    def _refused(self, asked: Coroutine[Any, Any, Any], kind: type[Exception]) -> None:
        try:
            self.run_now(asked)
        except kind:
            return
        raise AssertionError(f"{kind.__name__} was due")

    def _some(self, pick: int, *statuses: RunStatus) -> Known | None:
        """One of the runs, mostly one whose status lets it do what is asked."""
        fit = [run for run in self.runs if run.status in statuses] if pick else []
        runs = fit or self.runs
        return runs[pick % len(runs)] if runs else None

    def _known(self, run_id: str) -> Known:
        return next(run for run in self.runs if run.run_id == run_id)

    def _ttl(self, expired: bool) -> float:
        return 0.0 if expired else LONG_S


@pytest.fixture
def lives(config: RuntimeConfig) -> Iterator[type[RunLives]]:
    """The machine over a store of its own."""
    with asyncio.Runner() as runner:
        store: Store = runner.run(open_store(config))
        yield type("RunLivesHere", (RunLives,), {"store": store, "run_now": staticmethod(runner.run)})
        runner.run(store.close())


def test_lives_of_runs(lives: type[RunLives]) -> None:
    few = settings(
        max_examples=25, stateful_step_count=3, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(lives, settings=few)


@pytest.mark.parametrize("seed", range(scaled(3, 12)))
def test_long_lives_of_runs(lives: type[RunLives], seed: int) -> None:
    # Hypothesis finds short examples and repeats itself in long ones; rare states need many even throws.
    chance = random.Random(seed)
    machine = lives()
    for _ in range(250):
        getattr(machine, chance.choice(_STEPS))(chance.randrange(6), chance.random() < 0.6)
        machine.the_store_agrees()
    machine.teardown()
