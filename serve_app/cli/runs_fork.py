"""`parley runs fork`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from registries.contracts.errors import ValidationError
from serve_app.cli.command import command
from serve_app.cli.options import AsJson, RunId, Watch
from serve_app.cli.prompt_input import text_or_file
from serve_app.cli.runs_watch import accepted


def fork(
    run_id: RunId,
    checkpoint: Annotated[
        str | None, typer.Option(help="Where to begin (see `parley runs show --state`); default the last.")
    ] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option("--set", help="CHANNEL.NAME=VALUE, such as outputs.creator=TEXT or @FILE; repeatable."),
    ] = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Make a new run from a step of another, with a changed state."""
    with command(as_json) as cmd:
        state = edits_from(edits or [])
        with cmd.client() as client:
            accepted(cmd, client, client.fork_run(run_id, checkpoint, state or None), watch)


def edits_from(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """``["outputs.creator=85"]`` by channel; raises ValidationError for anything else.

    Outputs are texts. In other channels a value that is JSON is taken as such: ``scores.judge=0.5``.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        place, sign, value = pair.partition("=")
        channel, dot, name = place.partition(".")
        if not sign or not dot or not channel or not name:
            raise ValidationError(
                f"--set {pair!r} is not allowed. Allowed: CHANNEL.NAME=VALUE, such as outputs.creator=85",
                param="state",
            )
        text = text_or_file(value, "state")
        found.setdefault(channel, {})[name] = text if channel == "outputs" else _json_or_text(text, place)
    return found


def _json_or_text(text: str, place: str) -> Any:
    """Python also reads what no JSON has: raises ValidationError for a NaN or Infinity."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise ValidationError(f"--set {place}: the value is nested too deeply", param="state") from None
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValidationError(
            f"--set {place}: NaN and Infinity are not allowed, JSON has no such numbers", param="state"
        ) from None
    return value
