"""Accepted runs outlive the runtime: killed outright or stopped, the next `parley up` goes on with them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from registries.contracts.runs import RunEvent
from serve_app.lifecycle.processes import marked_processes, own_lineage
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import read_state
from tests.chaos.engine.checker import event_problems, result_problems
from tests.e2e.place import Place
from tests.machine_pace import paced

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(300)]
RESUMED_S = 60.0
RUNS = 8
ORDER = {"flow_type": "challenge", "prompt": "What is 48 + 37?", "deadline_s": 300}


class Door:
    """The API of a place, for a runtime and the one that follows it: each has a key of its own.

    One client, which costs more to make than an answer, and no connection kept: that of a killed runtime
    would be the next request's.
    """

    def __init__(self, place: Place) -> None:
        self._home = RuntimeHome(place.home)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{place.port}",
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {
            "x-api-key": self._home.saved_key() or "",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        return self._client.request(method, path, json=body, headers=sent)

    def order(self, key: str) -> str:
        """A background run; its id."""
        answer = self.ask("POST", "/api/runs", ORDER, idempotency_key=key)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def known(self) -> int:
        """How many runs there are."""
        answer = self.ask("GET", "/api/runs?limit=200")
        assert answer.status_code == 200, answer.text
        return len(answer.json()["runs"])

    def run(self, run_id: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/api/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def door(runtime: Place) -> Iterator[Door]:
    made = Door(runtime)
    yield made
    made.close()


def wait_for(condition: Callable[[], bool], within_s: float, since: float | None = None) -> None:
    """Poll until so long after ``since`` (monotonic; now by default), as the usual machine counts."""
    deadline = (time.monotonic() if since is None else since) + paced(within_s)
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true within {within_s:g} s"
        time.sleep(0.1)


def halfway(door: Door, run_ids: list[str]) -> bool:
    """Whether some runs have committed nodes while none has ended."""
    runs = [door.run(run_id) for run_id in run_ids]
    assert not any(run["status"] == "completed" for run in runs), "the runs ended before the fault"
    return sum(bool(run["nodes"]) for run in runs) >= RUNS // 2


def fault_free(door: Door) -> dict[str, Any]:
    answer = door.ask("POST", "/api/orchestrate", ORDER)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert result["status"] == "completed"
    return result


def resumed(door: Door, run_ids: list[str], begun: float) -> list[dict[str, Any]]:
    """The runs once all have completed by themselves; `parley up` was typed at ``begun``."""
    wait_for(lambda: all(door.run(run_id)["status"] == "completed" for run_id in run_ids), RESUMED_S, begun)
    return [door.run(run_id) for run_id in run_ids]


def assert_whole(runs: list[dict[str, Any]], reference: dict[str, Any]) -> None:
    for run in runs:
        events = [RunEvent.model_validate(event) for event in run["execution_log"]]
        assert event_problems(events) == [], run["run_id"]
        assert result_problems(run["result"], reference) == [], run["run_id"]
    assert max(run["attempts"] for run in runs) >= 2, "no run was cut off: the fault tested nothing"


def kill_everything(place: Place) -> None:
    """SIGKILL to the whole process tree at once, and to what it still gave birth to."""
    deadline = time.monotonic() + paced(5)
    while living := marked_processes(place.home, exclude=own_lineage()):
        assert time.monotonic() < deadline, f"still there: {living}"
        for process in living:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)


def test_runs_go_on_after_everything_was_killed(runtime: Place, door: Door) -> None:
    reference = fault_free(door)
    known = door.known()
    run_ids = [door.order(f"killed-{n}") for n in range(RUNS)]
    assert len(set(run_ids)) == RUNS
    wait_for(lambda: halfway(door, run_ids), 30)
    before = read_state(RuntimeHome(runtime.home))
    kill_everything(runtime)
    begun = time.monotonic()
    runtime.good("parley up")
    runs = resumed(door, run_ids, begun)
    print(f"\nall {RUNS} runs completed {time.monotonic() - begun:.1f} s after `parley up` was typed")
    assert_whole(runs, reference)
    again = read_state(RuntimeHome(runtime.home))
    assert before is not None and again is not None and again.instance != before.instance
    # A key is as durable as its run: the same order is the same run, another order under it is refused.
    replay = door.ask("POST", "/api/runs", ORDER, idempotency_key="killed-3")
    assert replay.status_code == 202 and replay.json()["run_id"] == run_ids[3]
    assert replay.headers["idempotency-replayed"] == "true"
    other = door.ask("POST", "/api/runs", {**ORDER, "prompt": "What is 1 + 1?"}, idempotency_key="killed-3")
    assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"
    assert door.known() == known + RUNS


def test_runs_go_on_after_the_runtime_was_stopped(runtime: Place, door: Door) -> None:
    reference = fault_free(door)
    run_ids = [door.order(f"stopped-{n}") for n in range(RUNS)]
    wait_for(lambda: halfway(door, run_ids), 30)
    begun = time.monotonic()
    runtime.good("parley down")
    print(f"\n`parley down` under load took {time.monotonic() - begun:.1f} s")
    assert runtime.processes() == []
    begun = time.monotonic()
    runtime.good("parley up")
    runs = resumed(door, run_ids, begun)
    print(f"all {RUNS} runs completed {time.monotonic() - begun:.1f} s after `parley up` was typed")
    assert_whole(runs, reference)
    for n, run_id in enumerate(run_ids):
        assert door.order(f"stopped-{n}") == run_id
