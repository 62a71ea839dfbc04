"""A shell in an empty PARLEY_HOME, and a real HTTP server in the place of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.ray_flags import INSTANCE_MARKER
from serve_app.lifecycle.processes import HOME_MARKER
from serve_app.lifecycle.runtime_state import ProcessFact, RuntimeState, write_state
from tests.unit.serve_app.cli.shell import Shell
from tests.unit.serve_app.fake_runtime import FakeRuntime, fake_runtime
from tests.unit.serve_app.lifecycle.test_processes import WILLING, running

FLOW = {"name": "challenge", "spec": {"nodes": [{"id": "creator", "model": "tier:strong"}]}}


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with fake_runtime() as made:
        made.json("GET /api/models", {"models": [], "tiers": {}})
        made.json("GET /api/flows/challenge", FLOW)
        yield made


@pytest.fixture
def shell(tmp_path: Path, fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    made = Shell(tmp_path / "home", fake.port)
    made.home.ensure()
    made.home.admin_key()
    return made


@pytest.fixture
def started(shell: Shell, fake: FakeRuntime) -> Iterator[Shell]:
    """As after `parley up`: two living daemons, and the fake as the API."""
    marker = {INSTANCE_MARKER: "i", HOME_MARKER: str(shell.home.path)}
    with running(WILLING, marker) as process:
        daemons = tuple(ProcessFact(pid=process.pid, started=0, name=n) for n in ("raylet", "gcs_server"))
        state = RuntimeState(
            instance="i",
            phase="started",
            http_port=fake.port,
            dashboard_port=1,
            gcs_address="",
            ray_dir="/ray",
            started_at=0,
            processes=daemons,
        )
        write_state(shell.home, state)
        yield shell
