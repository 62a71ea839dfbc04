"""Waiting: what is said meanwhile, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.errors import InternalError, ParleyError
from serve_app.client.answers import Readiness
from serve_app.client.api_errors import NotRunning
from serve_app.lifecycle.await_ready import DeploymentWatch, await_ready, failures, probe_with
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import ProcessFact, RuntimeState


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def doing(self, text: str) -> None:
        self.done.append(text)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def report(status: str, **parts: str) -> Readiness:
    return Readiness.model_validate(
        {"status": status, "parts": {name: {"state": state, "reason": None} for name, state in parts.items()}}
    )


def wait(
    reports: list[Readiness | None],
    deploying: Callable[[], str | None] = lambda: None,
    timeout_s: float = 100,
) -> tuple[str, Notes]:
    left: Iterator[Readiness | None] = iter(reports)
    last = reports[-1]
    notes, time = Notes(), Time()
    outcome, _ = await_ready(
        lambda: next(left, last), deploying, notes, timeout_s=timeout_s, clock=time, sleep=time.sleep
    )
    return outcome, notes


def test_what_loads_is_said_until_it_is_ready() -> None:
    outcome, notes = wait(
        [None] * 8
        + [report("loading", **{"nano-m": "loading", "nano-s": "loading", "api": "ready"})]
        + [report("loading", **{"nano-m": "loading", "nano-s": "ready"}), report("ready")]
    )
    assert outcome == "ready"
    assert notes.done[0].startswith("waiting for the API")
    assert "loading nano-m, nano-s (2 s)" in notes.done and notes.done[-1].startswith("loading nano-m (")
    assert notes.said == ["the API answers after 2 s"]


def test_an_api_that_is_there_at_once_is_no_news() -> None:
    assert wait([report("ready")])[1].said == []


def test_a_failed_part_ends_the_waiting_when_nothing_loads_any_more() -> None:
    outcome, _ = wait(
        [report("failed", a="failed", b="loading")] * 3 + [report("failed", a="failed", b="ready")]
    )
    assert outcome == "partly"


def test_a_deployment_that_failed_ends_the_waiting() -> None:
    with pytest.raises(InternalError, match="no disk"):
        wait([None], deploying=lambda: "no disk")


def test_time_is_up_at_some_time() -> None:
    assert wait([report("loading", a="loading")], timeout_s=3)[0] == "late"
    assert wait([None], timeout_s=3)[0] == "late"


@given(st.lists(st.sampled_from(["none", "loading", "failed", "ready"]), min_size=1, max_size=30))
def test_it_always_ends_and_never_after_the_time(statuses: list[str]) -> None:
    reports = [None if s == "none" else report(s, part=s) for s in statuses]
    outcome, _ = wait(reports, timeout_s=5)
    expected = next((s for s in statuses if s in {"ready", "failed"}), None)
    assert outcome == {"ready": "ready", "failed": "partly", None: "late"}[expected]


def test_failures_have_their_reason() -> None:
    told = Readiness.model_validate(
        {"status": "failed", "parts": {"m": {"state": "failed", "reason": "no folder"}}}
    )
    assert failures(told) == ["m failed: no folder"]
    assert failures(None) == []


def test_a_probe_that_reaches_nobody_is_none() -> None:
    def refuse() -> Readiness:
        raise NotRunning("nobody")

    assert probe_with(refuse)() is None
    assert probe_with(lambda: report("ready"))() == report("ready")


def watch_of(
    tmp_path: Path, deployer: ProcessFact | None, daemons: tuple[ProcessFact, ...]
) -> tuple[DeploymentWatch, Time]:
    state = RuntimeState(
        instance="i",
        phase="started",
        http_port=1,
        dashboard_port=2,
        gcs_address="",
        ray_dir="/ray",
        started_at=0,
        processes=daemons,
        deployer=deployer,
    )
    time = Time()
    return DeploymentWatch(RuntimeHome(tmp_path), state, clock=time), time


def test_a_dead_deployer_is_reported_with_the_last_words_of_its_log(tmp_path: Path) -> None:
    gone = ProcessFact(pid=os.getpid(), started=0, name="python")
    watch, time = watch_of(tmp_path, gone, ())
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "deploy.log").write_text("starting\nthe database is locked\n---\n")
    assert watch() is None, "the API may still come up"
    time.now += 60
    assert "the database is locked" in (watch() or "")


def test_a_dead_daemon_is_reported_at_once(tmp_path: Path) -> None:
    watch, _ = watch_of(tmp_path, None, (ProcessFact(pid=os.getpid(), started=0, name="raylet"),))
    assert "Ray ended by itself (raylet)" in (watch() or "")


def test_our_errors_are_the_only_ones_that_a_probe_swallows() -> None:
    def crash() -> Readiness:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        probe_with(crash)()
    assert issubclass(NotRunning, ParleyError)
