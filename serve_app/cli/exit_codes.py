"""What `parley` exits with; docs/cli.md repeats it."""

from __future__ import annotations

from enum import IntEnum

from registries.contracts.errors import (
    Conflict,
    NotFound,
    ParleyError,
    Unauthorized,
    ValidationError,
)
from serve_app.client.api_errors import NotRunning


class ExitCode(IntEnum):
    """0 is success; every other one has one meaning."""

    OK = 0
    FAILED = 1
    """The run, call or check failed; the message has the code of the error."""
    USAGE = 2
    """Wrong arguments, configuration or request."""
    NOT_RUNNING = 3
    """No runtime answers."""
    LIFECYCLE = 4
    """Starting or stopping failed, or a port is in use."""
    UNAUTHORIZED = 5
    """The key is missing or wrong."""
    WAITING = 6
    """The run waits for a human's answer."""
    CANCELLED = 7
    """The run was cancelled."""
    INTERRUPTED = 130
    """Ctrl-C."""


def exit_code_of(error: ParleyError) -> ExitCode:
    """The code for an error that ends a command."""
    if isinstance(error, NotRunning):
        return ExitCode.NOT_RUNNING
    if isinstance(error, Unauthorized):
        return ExitCode.UNAUTHORIZED
    if isinstance(error, ValidationError | NotFound):
        return ExitCode.USAGE
    if isinstance(error, Conflict):
        # Told by the runtime, it is a request that does not fit; else it is about starting and stopping.
        return ExitCode.USAGE if error.context.get("status") else ExitCode.LIFECYCLE
    return ExitCode.FAILED


_BY_STATUS = {
    "completed": ExitCode.OK,
    "waiting": ExitCode.WAITING,
    "cancelled": ExitCode.CANCELLED,
}


def exit_code_of_run(status: str) -> ExitCode:
    """The code of a command that waited for a run."""
    return _BY_STATUS.get(status, ExitCode.FAILED)
