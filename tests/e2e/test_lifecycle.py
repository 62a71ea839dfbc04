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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODELS = """
tiers: {light: actor, balanced: actor, strong: actor}
models:
  - key: actor
    family: general
    provider: local
    engine: scripted
    location: inline
    context_window: 4096
    default_strategy: optimized
    engine_options: {script: {answers: [{texts: ["It is 85."]}]}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "models.yaml").write_text(MODELS)
    made = Place(tmp_path / "a home", PARLEY_CATALOG_DIRS=str(catalog), PARLEY_MODELS="actor")
    yield made
    made.type("parley down")


def test_a_crashed_runtime_is_recognised_cleaned_and_started_again(place: Place) -> None:
    place.good("parley up")
    home = RuntimeHome(place.home)
    state = read_state(home)
    assert state is not None
    for path in (home.path, home.run_dir, Path(state.ray_dir).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (home.admin_key_file, home.state_file, home.config_file, home.path / "ray.token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    begun = time.monotonic()
    assert json.loads(place.good("parley up --json"))["fresh"] is False
    assert time.monotonic() - begun < 5
    assert place.type("parley up --port 1").returncode == 4
    for fact in state.processes:
        os.kill(fact.pid, signal.SIGKILL)
    assert place.type("parley status").returncode == 3
    again = json.loads(place.good("parley up --json"))
    assert again["fresh"] is True and again["instance"] != state.instance
    assert json.loads(place.good("parley run --json hello"))["status"] == "completed"
    ours = place.listening()
    begun = time.monotonic()
    place.good("parley down")
    assert time.monotonic() - begun < 15
    assert place.processes() == [] and not ours & all_listeners()


def test_an_own_key_is_taken_and_no_keys_are_in_the_environment_of_the_cluster(place: Place) -> None:
    own, foreign = "my-own-key-0123456789", "sk-canary-0123456789"
    place.good("parley up", PARLEY_API_KEY=own, MISTRAL_API_KEY=foreign)
    assert place.curl("/api/models", key=own)[0] == 200
    assert place.curl("/api/models")[0] == 401
    # Another shell, without the variable: the command still finds the key of the running runtime.
    assert json.loads(place.good("parley direct --json hello"))["text"] == "It is 85."
    state = read_state(RuntimeHome(place.home))
    assert state is not None
    for fact in state.processes:
        text = Path(f"/proc/{fact.pid}/environ").read_bytes()
        assert own.encode() not in text and foreign.encode() not in text
    logs = [p for p in Path(state.ray_dir).rglob("*.log") if p.is_file()] + list(
        (place.home / "logs").iterdir()
    )
    assert logs and not any(own.encode() in p.read_bytes() for p in logs)


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
    deadline = time.monotonic() + 60
    while not place.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    starting.send_signal(signal.SIGINT)
    _, words = starting.communicate(timeout=60)
    assert starting.returncode == 130 and "interrupted" in words and "Traceback" not in words
    place.good("parley down")
    assert place.processes() == []


def test_a_broken_catalog_is_told_before_anything_starts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "catalog" / "models.yaml").write_text("models:\n  - {key: actor, engine: telepathy}\n")
    done = place.type("parley up")
    assert done.returncode == 2 and "models.yaml" in done.stderr and "telepathy" in done.stderr
    assert place.processes() == []
