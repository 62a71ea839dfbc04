"""Starting, crashing, starting again: with scripted models, because only processes matter here."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import read_state
from tests.e2e.place import BIN, ROOT, Place, all_listeners
from tests.e2e.scripted_place import scripted_place
from tests.machine_pace import paced

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where nothing runs yet."""
    made = scripted_place(tmp_path)
    yield made
    made.type("parley down")


def test_a_crashed_runtime_is_recognised_cleaned_and_started_again(runtime: Place) -> None:
    runtime.good("parley up")
    home = RuntimeHome(runtime.home)
    state = read_state(home)
    assert state is not None
    for path in (home.path, home.run_dir, Path(state.ray_dir).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (home.admin_key_file, home.state_file, home.config_file, home.path / "ray.token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    begun = time.monotonic()
    assert json.loads(runtime.good("parley up --json"))["fresh"] is False
    assert time.monotonic() - begun < paced(5)
    assert runtime.type("parley up --port 1").returncode == 4
    for fact in state.processes:
        os.kill(fact.pid, signal.SIGKILL)
    assert runtime.type("parley status").returncode == 3
    again = json.loads(runtime.good("parley up --json"))
    assert again["fresh"] is True and again["instance"] != state.instance
    assert json.loads(runtime.good("parley run --json hello"))["status"] == "completed"


def test_the_runtime_s_end_leaves_no_process_and_no_port(runtime: Place) -> None:
    runtime.good("parley up")
    ours = runtime.listening()
    begun = time.monotonic()
    runtime.good("parley down")
    assert time.monotonic() - begun < paced(15)
    assert runtime.processes() == [] and not ours & all_listeners()


def test_a_port_in_use_is_one_clear_error_and_nothing_is_left(place: Place) -> None:
    with socket.create_server(("0.0.0.0", place.port)):
        done = place.type("parley up")
    assert done.returncode == 4
    assert f"port {place.port} (the HTTP API) is in use by" in done.stderr and "--port" in done.stderr
    assert place.processes() == []


def test_an_interrupted_start_leaves_nothing(place: Place) -> None:
    starting = subprocess.Popen(
        [BIN / "parley", "up"],
        cwd=ROOT,
        env=place.environment,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in a shell's background inherits an ignored SIGINT, and would hand it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + paced(30)
    while not place.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    starting.send_signal(signal.SIGINT)
    _, words = starting.communicate(timeout=paced(30))
    assert starting.returncode == 130 and "interrupted" in words and "Traceback" not in words
    place.good("parley down")
    assert place.processes() == []


def test_a_broken_catalog_is_told_before_anything_starts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "catalog" / "models.yaml").write_text("models:\n  - {key: actor, engine: telepathy}\n")
    done = place.type("parley up")
    assert done.returncode == 2 and "models.yaml" in done.stderr and "telepathy" in done.stderr
    assert place.processes() == []
