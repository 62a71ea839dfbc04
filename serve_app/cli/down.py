"""`parley down`."""

from __future__ import annotations

import typer

from serve_app.cli.command import command
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson


def down(as_json: AsJson = False) -> None:
    """End everything that `parley up` started, and nothing else."""
    with command(as_json) as cmd:
        from serve_app.lifecycle.stop_runtime import stop_runtime

        with cmd.output.progress() as progress:
            report = stop_runtime(cmd.home, progress)
        if as_json:
            left = [fact.model_dump() for fact in report.ended.left]
            ended, killed = len(report.ended.terminated), len(report.ended.killed)
            cmd.output.json({"was_there": report.was_there, "ended": ended, "killed": killed, "left": left})
        else:
            cmd.output.line(report.words())
        raise typer.Exit(ExitCode.OK if report.complete else ExitCode.LIFECYCLE)
