"""Waits until the API answers and everything that was asked for is loaded, and says what is loading."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from registries.contracts.errors import InternalError, ParleyError
from serve_app.client.answers import Readiness
from serve_app.lifecycle.deploy_failure import why_not_deployed
from serve_app.lifecycle.processes import is_alive
from serve_app.lifecycle.progress import Progress
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import RuntimeState

Outcome = Literal["ready", "partly", "late"]
_POLL_S = 0.25
_DEPLOYER_GRACE_S = 3.0
"""The deploying process stays as long as the runtime; this is for an API that answers in the same moment."""


def await_ready(
    probe: Callable[[], Readiness | None],
    deploying: Callable[[], str | None],
    progress: Progress,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Outcome, Readiness | None]:
    """Poll ``probe`` until all is ready, some failed and nothing loads ("partly"), or time is up ("late").

    ``deploying`` answers why the deployment failed, or None while it goes on or went well; its words are
    raised as InternalError.
    """
    started = clock()
    answered = False
    last: Readiness | None = None
    while True:
        report = probe()
        if report is not None:
            last = report
            if not answered:
                answered = True
                if (waited_s := clock() - started) >= 1:
                    progress.say(f"the API answers after {waited_s:.0f} s")
            if report.status == "ready":
                return "ready", report
            if report.status == "failed" and not names_in(report, "loading"):
                return "partly", report
        elif (reason := deploying()) is not None:
            raise InternalError(reason)
        progress.doing(waiting_for(last, answered, clock() - started))
        if clock() - started > timeout_s:
            return "late", last
        sleep(_POLL_S)


def names_in(report: Readiness, state: str) -> list[str]:
    """Names of the parts in that state, sorted."""
    return sorted(name for name, part in report.parts.items() if part.state == state)


def waiting_for(report: Readiness | None, answered: bool, elapsed_s: float) -> str:
    """What is loading, in words."""
    if not answered or report is None:
        return f"waiting for the API ({elapsed_s:.0f} s)"
    loading = names_in(report, "loading")
    what = ", ".join(loading) if loading else "the application"
    return f"loading {what} ({elapsed_s:.0f} s)"


def failures(report: Readiness | None) -> list[str]:
    """One line for each part that failed, with its reason."""
    if report is None:
        return []
    failed = names_in(report, "failed")
    return [f"{name} failed: {report.parts[name].reason or 'no reason given'}" for name in failed]


class DeploymentWatch:
    """Notices that the deploying process, or Ray, ended before the API answered."""

    def __init__(
        self, home: RuntimeHome, state: RuntimeState, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._home = home
        self._state = state
        self._clock = clock
        self._ended_at: float | None = None

    def __call__(self) -> str | None:
        """Why it failed; None while it goes on."""
        dead = [fact.name for fact in self._state.processes if not is_alive(fact, self._state.instance)]
        if dead:
            logs = f"{self._state.ray_dir}/session_latest/logs"
            return f"Ray ended by itself ({', '.join(dead)}); its logs: {logs}"
        if self._state.deployer is None or is_alive(self._state.deployer, self._state.instance):
            return None
        if self._ended_at is None:
            self._ended_at = self._clock()
        if self._clock() - self._ended_at < _DEPLOYER_GRACE_S:
            return None
        log = self._home.logs_dir / "deploy.log"
        return f"the application was not deployed: {why_not_deployed(log)} (all of it: {log})"


def probe_with(ask: Callable[[], Readiness]) -> Callable[[], Readiness | None]:
    """``ask``, with None where nobody answers yet."""

    def probe() -> Readiness | None:
        try:
            return ask()
        except ParleyError:
            return None

    return probe
