"""Is a runtime of this PARLEY_HOME running, is one left half dead, or is there none?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serve_app.lifecycle.processes import is_alive, marked_processes
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import RuntimeState, read_state

DAEMONS = frozenset({"gcs_server", "raylet"})
"""Without both there is no cluster."""


@dataclass(frozen=True, slots=True)
class Found:
    """``stale``: something is left of a runtime that cannot serve any more, or of a broken start."""

    condition: Literal["none", "running", "stale"]
    state: RuntimeState | None = None


def find_runtime(home: RuntimeHome) -> Found:
    """Look at the saved state and at the processes it names; only without a state, at all processes."""
    state = read_state(home)
    if state is None:
        leftover = home.state_file.exists() or (home.path.is_dir() and marked_processes(home.path))
        return Found("stale") if leftover else Found("none")
    alive = {fact.name for fact in state.processes if is_alive(fact, state.instance)}
    complete = state.phase == "started" and alive >= DAEMONS
    return Found("running" if complete else "stale", state)
