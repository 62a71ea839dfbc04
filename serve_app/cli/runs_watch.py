"""`parley runs watch`, and what other commands do with `--watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from registries.contracts.runs import RunResult
from serve_app.cli.command import Command, command
from serve_app.cli.event_screen import show_events
from serve_app.cli.exit_codes import exit_code_of_run
from serve_app.cli.options import AsJson, RunId
from serve_app.cli.show_result import show_run

if TYPE_CHECKING:
    from serve_app.client.answers import RunSummary
    from serve_app.client.client import Client


def watch(run_id: RunId, as_json: AsJson = False) -> None:
    """Show a run from its beginning, then live, until it ends or waits for you."""
    with command(as_json) as cmd, cmd.client() as client:
        raise typer.Exit(exit_code_of_run(watch_run(cmd, client, run_id).status))


def watch_run(cmd: Command, client: Client, run_id: str, after: int = 0) -> RunResult:
    """Print the events after ``after`` and the outcome, over broken connections too."""
    told = show_events(cmd.output, client.events(run_id, after, until="waiting"))
    outcome = told or client.get_run(run_id, log=False).outcome
    if not cmd.output.as_json:
        show_run(cmd.output, outcome)
    return outcome


def accepted(cmd: Command, client: Client, made: RunSummary, follow: bool, after: int = 0) -> None:
    """End a command that has put a run into the queue: its id alone on stdout, or all that happens."""
    if follow:
        raise typer.Exit(exit_code_of_run(watch_run(cmd, client, made.run_id, after).status))
    if cmd.output.as_json:
        cmd.output.json(made.model_dump(mode="json"))
    else:
        cmd.output.line(made.run_id)
        cmd.output.note(f"see it: parley runs watch {made.run_id}", "dim")
