"""`parley runs …`: the group, and those of its commands that are one call."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_app.cli.command import command
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson, Deadline, RunId, Watch
from serve_app.cli.runs_fork import fork
from serve_app.cli.runs_list import list_runs
from serve_app.cli.runs_resume import resume
from serve_app.cli.runs_show import show
from serve_app.cli.runs_watch import accepted, watch

runs = typer.Typer(
    name="runs",
    help="What ran, runs and waits: list, show, watch, cancel, restart, fork, resume, rate.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def cancel(
    run_id: RunId,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    timeout: Annotated[float, typer.Option(help="Most seconds to wait.", min=0)] = 60.0,
    as_json: AsJson = False,
) -> None:
    """End a run that is queued, under way or waiting."""
    with command(as_json) as cmd:
        with cmd.client() as client:
            status = client.cancel_run(run_id).status
            if wait and status == "running":
                status = client.wait_for(run_id, timeout, until="end").status
        if as_json:
            cmd.output.json({"run_id": run_id, "status": status})
        else:
            cmd.output.line("being stopped" if status == "running" else status)
        late = status not in ("cancelled", "running")
        raise typer.Exit(ExitCode.FAILED if late else ExitCode.OK)


def restart(run_id: RunId, deadline: Deadline = None, watch: Watch = False, as_json: AsJson = False) -> None:
    """Let a failed run go on after its last committed step."""
    with command(as_json) as cmd, cmd.client() as client:
        seen = client.get_run(run_id, log=False).last_seq if watch else 0
        accepted(cmd, client, client.restart_run(run_id, deadline), watch, seen)


def feedback(
    run_id: RunId,
    rating: Annotated[float, typer.Argument(help="From 0 (useless) to 1 (just right).", min=0, max=1)],
    comment: Annotated[str | None, typer.Option(help="In words.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rate a run; a later rating replaces it."""
    with command(as_json) as cmd, cmd.client() as client:
        kept = client.give_feedback(run_id, rating, comment)
        if as_json:
            cmd.output.json({"run_id": run_id, **kept.model_dump(mode="json", include={"rating", "comment"})})
        else:
            cmd.output.line(f"rated {kept.rating:g}")


for _name, _command in (
    ("list", list_runs),
    ("show", show),
    ("watch", watch),
    ("cancel", cancel),
    ("restart", restart),
    ("fork", fork),
    ("resume", resume),
    ("feedback", feedback),
):
    runs.command(_name)(_command)
