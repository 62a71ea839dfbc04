"""The file that says which runtime was started from a PARLEY_HOME."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import BaseModel, ConfigDict

from serve_app.lifecycle.runtime_home import RuntimeHome, write_private


class ProcessFact(BaseModel):
    """A process as it was started; its marker says later whether the pid still means it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: float
    """Seconds since the epoch, as the system tells it; for people."""
    name: str


class RuntimeState(BaseModel):
    """What was started, by whom it is found again. Ports are on this machine."""

    model_config = ConfigDict(frozen=True)

    instance: str
    phase: Literal["starting", "started"]
    http_port: int
    dashboard_port: int
    gcs_address: str
    ray_dir: str
    started_at: float
    """Seconds since the epoch, wall clock; for people."""
    processes: tuple[ProcessFact, ...] = ()
    deployer: ProcessFact | None = None

    @property
    def api_url(self) -> str:
        """Where the HTTP API is."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dashboard_url(self) -> str:
        """Where the Ray dashboard is."""
        return f"http://127.0.0.1:{self.dashboard_port}"


def read_state(home: RuntimeHome) -> RuntimeState | None:
    """The saved state, or None when there is none or it is damaged (markers then find the processes)."""
    try:
        return RuntimeState.model_validate_json(home.state_file.read_bytes())
    except (OSError, pydantic.ValidationError):
        return None


def write_state(home: RuntimeHome, state: RuntimeState) -> None:
    """Save it, atomically."""
    write_private(home.state_file, state.model_dump_json(indent=2) + "\n")


def forget_state(home: RuntimeHome) -> None:
    """Remove what exists only while a runtime does; idempotent."""
    for file in (home.state_file, home.config_file, home.effective_key_file):
        Path(file).unlink(missing_ok=True)
