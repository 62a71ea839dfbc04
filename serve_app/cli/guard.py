"""No traceback ever reaches a user: what a command raises becomes words and an exit code."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from registries.contracts.errors import ParleyError
from serve_app.cli.exit_codes import ExitCode, exit_code_of
from serve_app.cli.output import Output, silence_broken_pipe


@contextmanager
def guard(output: Output, crash_log: Callable[[], Path | None]) -> Iterator[None]:
    """Around the body of every command. A fault of ours goes to ``crash_log`` in full."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except ParleyError as error:
        show_error(output, error)
        raise typer.Exit(exit_code_of(error)) from None
    except KeyboardInterrupt:
        output.note("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        silence_broken_pipe()
        raise typer.Exit(ExitCode.OK) from None
    except Exception as error:  # noqa: BLE001 - converted: the last line of defence
        place = _written_down(crash_log())
        output.error(f"a fault in parley itself ({error.__class__.__name__}){place}")
        raise typer.Exit(ExitCode.FAILED) from None


def show_error(output: Output, error: ParleyError) -> None:
    """One error: as JSON on stdout with --json, and in words on stderr."""
    request_id = error.context.get("request_id")
    if output.as_json:
        fact = {
            "code": error.context.get("code") or error.code,
            "message": error.message,
            "param": error.param,
            "retryable": error.retryable,
            "retry_after_s": error.retry_after_s,
            "request_id": request_id or None,
        }
        output.json({"error": fact})
    hint = f" (try again in {error.retry_after_s:g} s)" if error.retry_after_s else ""
    trail = f" [request {request_id}]" if request_id else ""
    output.error(f"{error.message}{hint}{trail}")


def _written_down(crash_log: Path | None) -> str:
    if crash_log is None:
        return ""
    try:
        crash_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(crash_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(traceback.format_exc())
    except OSError:
        return ""
    return f"; the details are in {crash_log}"
