"""Whether a Serve application has a replica that can answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ray.exceptions
from ray import serve
from ray.serve.exceptions import RayServeException

CACHE_S = 0.5
"""Age up to which one look at Serve's status serves every model of the process."""


@dataclass(frozen=True, slots=True)
class AppState:
    """``message`` says why, in Serve's words, where the state is "failed"."""

    state: Literal["ready", "loading", "failed", "absent"]
    message: str = ""


@dataclass(slots=True)
class ServeReadiness:
    """Answers from Serve's status, read in a thread and kept CACHE_S; ``read`` is injectable."""

    read: Callable[[], Mapping[str, Any]] = field(default=lambda: serve.status().applications)
    clock: Callable[[], float] = time.monotonic
    _states: dict[str, AppState] = field(default_factory=dict)
    _read_at: float = field(default=float("-inf"))
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def state(self, app_name: str) -> AppState:
        """The application's state, at most CACHE_S old; "absent" when Serve cannot be asked."""
        async with self._lock:
            if self.clock() - self._read_at > CACHE_S:
                self._states = await asyncio.to_thread(self._look)
                self._read_at = self.clock()
        return self._states.get(app_name, AppState("absent"))

    def _look(self) -> dict[str, AppState]:
        try:
            applications = self.read()
        except (RayServeException, ray.exceptions.RayError):
            return {}
        return {name: _judge(overview) for name, overview in applications.items()}


def _judge(overview: Any) -> AppState:
    running = [
        sum(
            count
            for state, count in d.replica_states.items()
            if str(getattr(state, "value", state)) == "RUNNING"
        )
        for d in overview.deployments.values()
    ]
    if running and all(running):
        return AppState("ready")
    status = str(getattr(overview.status, "value", overview.status))
    if status == "DEPLOY_FAILED":
        # The application's own message only says that a deployment failed; the deployment's has the cause.
        told = [d.message for d in overview.deployments.values() if d.message]
        return AppState("failed", (told or [overview.message])[0])
    return AppState("loading", overview.message)
