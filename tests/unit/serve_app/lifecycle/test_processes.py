"""Processes: ours are found by their marker and ended, others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from actors.ray_flags import INSTANCE_MARKER
from serve_app.lifecycle.find_runtime import find_runtime
from serve_app.lifecycle.processes import (
    HOME_MARKER,
    end_processes,
    fact_of,
    is_alive,
    marked_processes,
    own_lineage,
)
from serve_app.lifecycle.progress import Silent
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import ProcessFact, RuntimeState, write_state
from serve_app.lifecycle.stop_runtime import stop_runtime, summary
from tests.machine_pace import paced

WILLING = "import time; print(1, flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WILLING}"


@contextmanager
def running(code: str, environment: dict[str, str]) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], env={**os.environ, **environment}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def home(tmp_path: Path) -> RuntimeHome:
    made = RuntimeHome(tmp_path / "home")
    made.ensure()
    return made


def marker(home: RuntimeHome, instance: str = "i") -> dict[str, str]:
    return {INSTANCE_MARKER: instance, HOME_MARKER: str(home.path)}


def state_of(*processes: ProcessFact) -> RuntimeState:
    return RuntimeState(
        instance="i",
        phase="started",
        http_port=1,
        dashboard_port=2,
        gcs_address="",
        ray_dir="",
        started_at=0,
        processes=processes,
    )


def test_only_processes_with_both_marks_are_ours(home: RuntimeHome, tmp_path: Path) -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(running(WILLING, marker(home)))
        stack.enter_context(running(WILLING, {HOME_MARKER: str(home.path)}))
        stack.enter_context(running(WILLING, {INSTANCE_MARKER: "i", HOME_MARKER: str(tmp_path)}))
        assert [p.pid for p in marked_processes(home.path)] == [ours.pid]
        assert marked_processes(home.path, exclude=frozenset({ours.pid})) == []


class PausesOnly:
    """A clock on which nothing takes time but pauses, however slow the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self.now += seconds


def test_a_willing_process_ends_by_term_and_a_stubborn_one_by_kill(
    home: RuntimeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = PausesOnly()
    monkeypatch.setattr("serve_app.lifecycle.processes.time", clock)
    with running(WILLING, marker(home)) as willing, running(STUBBORN, marker(home)):

        def found() -> list[psutil.Process]:
            if clock.now:
                willing.wait(paced(5))
            return marked_processes(home.path)

        ended = end_processes(found, term_s=0.3, total_s=5)
        assert len(ended.terminated) == 2 and len(ended.killed) == 1 and ended.left == ()


def test_what_outlives_the_deadline_is_told(home: RuntimeHome) -> None:
    with running(STUBBORN, marker(home)) as process:
        ended = end_processes(lambda: marked_processes(home.path), term_s=60, total_s=0.2)
        assert [fact.pid for fact in ended.left] == [process.pid]


def test_alive_is_the_pid_with_the_marker(home: RuntimeHome) -> None:
    with running(WILLING, marker(home)) as process:
        fact = fact_of(process)
        assert fact is not None
        assert is_alive(fact, "i") and not is_alive(fact, "another")
        process.kill()
        process.wait()
    assert not is_alive(fact, "i") and fact_of(process) is None


def test_a_reused_pid_is_not_taken_for_ours() -> None:
    assert not is_alive(ProcessFact(pid=os.getpid(), started=0, name="raylet"), "i")


def test_this_process_and_its_parents_are_never_ended() -> None:
    assert {os.getpid(), os.getppid()} <= own_lineage()


def test_conditions_of_a_runtime(home: RuntimeHome) -> None:
    assert find_runtime(RuntimeHome(home.path / "nowhere")).condition == "none"
    assert find_runtime(home).condition == "none"
    with running(WILLING, marker(home)) as process:
        fact = fact_of(process)
        assert fact is not None
        assert find_runtime(home).condition == "stale"
        both = (fact.model_copy(update={"name": "raylet"}), fact.model_copy(update={"name": "gcs_server"}))
        write_state(home, state_of(*both))
        assert find_runtime(home).condition == "running"
        write_state(home, state_of(both[0]))
        assert find_runtime(home).condition == "stale"
        write_state(home, state_of(*both).model_copy(update={"phase": "starting"}))
        assert find_runtime(home).condition == "stale"
    write_state(home, state_of(*both))
    assert find_runtime(home).condition == "stale"
    home.state_file.write_text("damaged")
    assert find_runtime(home).condition == "stale"


def test_stopping_ends_ours_forgets_the_state_and_can_be_repeated(home: RuntimeHome) -> None:
    assert not stop_runtime(RuntimeHome(home.path / "nowhere"), Silent()).was_there
    with running(WILLING, marker(home)) as process, running(WILLING, {}) as other:
        fact = fact_of(process)
        assert fact is not None
        write_state(home, state_of(fact))
        begun = time.monotonic()
        report = stop_runtime(home, Silent())
        assert report.complete and report.was_there and len(report.ended.terminated) == 1
        assert "1 processes ended" in report.words()
        assert time.monotonic() - begun < paced(5)
        assert other.is_running()
    assert not home.state_file.exists()
    again = stop_runtime(home, Silent())
    assert not again.was_there and "nothing to stop" in again.words()


def test_the_summary_counts_kinds() -> None:
    names = ("ray::IDLE", "ray::ServeReplica:x", "ray-dashboard-X", "raylet", "VLLM::EngineCor")
    assert summary(names) == "2 worker, 1 dashboard, 1 raylet, 1 vLLM engine"
    assert summary(()) == "none"
