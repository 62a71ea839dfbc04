"""`parley runs resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from registries.contracts.errors import ValidationError
from serve_app.cli.command import command
from serve_app.cli.options import AsJson, Deadline, RunId, Watch
from serve_app.cli.prompt_input import text_or_file
from serve_app.cli.runs_watch import accepted

if TYPE_CHECKING:
    from registries.contracts.runs import Waiting
    from serve_app.cli.output import Output
    from serve_app.client.answers import RunDetail

Action = Literal["approve", "edit", "reject"]
_SHOWN_CHARS = 200
"""Of the text that is decided on: enough to know it again."""


def resume(
    run_id: RunId,
    approve: Annotated[bool, typer.Option("--approve", help="The text is good as it is.")] = False,
    edit: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Go on with this text in its place; @FILE reads it.")
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="The text is not to be used.")] = False,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only if it still asks this (`parley runs show`); default what it asks."
        ),
    ] = None,
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
            run = client.get_run(run_id, log=False)
            asked = _asked(run)
            made = client.resume_run(
                run_id, action, text, comment, deadline, interrupt_id=question or asked.interrupt_id
            )
            _show_decided(cmd.output, action, asked)
            accepted(cmd, client, made, watch, run.last_seq)


def _asked(run: RunDetail) -> Waiting:
    """What it waits for. Raises ValidationError: a question that comes later was read by nobody."""
    if run.status != "waiting" or run.waiting is None:
        raise ValidationError(
            f"run {run.run_id} does not wait for a decision, it is {run.status}", param="run_id"
        )
    return run.waiting


def _show_decided(output: Output, action: Action, asked: Waiting) -> None:
    if output.as_json:
        return
    text = asked.text if len(asked.text) <= _SHOWN_CHARS else f"{asked.text[:_SHOWN_CHARS]}…"
    output.note(f"{action}: {asked.question or 'a decision'}  (node {asked.node})", "dim")
    if text:
        output.note(f"text: {text}", "dim")


def _action(approve: bool, edit: bool, reject: bool) -> Action:
    """The one that was given; raises ValidationError for none and for several."""
    if (approve, edit, reject).count(True) != 1:
        raise ValidationError("give one of --approve, --edit TEXT and --reject", param="action")
    return "approve" if approve else "edit" if edit else "reject"
