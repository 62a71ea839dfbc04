"""`parley runs resume`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from registries.contracts.errors import ValidationError
from serve_app.cli.command import command
from serve_app.cli.options import AsJson, Deadline, RunId, Watch
from serve_app.cli.prompt_input import text_or_file
from serve_app.cli.runs_watch import accepted


def resume(
    run_id: RunId,
    approve: Annotated[bool, typer.Option("--approve", help="The text is good as it is.")] = False,
    edit: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Go on with this text in its place; @FILE reads it.")
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="The text is not to be used.")] = False,
    comment: Annotated[
        str | None, typer.Option(help="Why, for the record and the nodes that follow.")
    ] = None,
    deadline: Deadline = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Answer a run that waits for a human; it goes on where it stopped."""
    with command(as_json) as cmd:
        action = _action(approve, edit is not None, reject)
        text = None if edit is None else text_or_file(edit, "text")
        with cmd.client() as client:
            seen = client.get_run(run_id, log=False).last_seq if watch else 0
            made = client.resume_run(run_id, action, text, comment, deadline)
            accepted(cmd, client, made, watch, seen)


def _action(approve: bool, edit: bool, reject: bool) -> Literal["approve", "edit", "reject"]:
    """The one that was given; raises ValidationError for none and for several."""
    if (approve, edit, reject).count(True) != 1:
        raise ValidationError("give one of --approve, --edit TEXT and --reject", param="action")
    return "approve" if approve else "edit" if edit else "reject"
