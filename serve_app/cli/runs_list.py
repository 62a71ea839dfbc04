"""`parley runs list`."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from registries.contracts.errors import ValidationError
from registries.contracts.runs import RunStatus
from serve_app.cli.command import Command, command
from serve_app.cli.options import AsJson
from serve_app.cli.show_result import cost
from serve_app.cli.table import show_table

if TYPE_CHECKING:
    from serve_app.client.answers import RunFilters, RunRow

_PAGE = 200
_PROMPT_CHARS = 48
_MAX_LIMIT = 1_000_000_000
_STATUSES: tuple[str, ...] = get_args(RunStatus)


def list_runs(
    status: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(_STATUSES)}; repeatable.")] = None,
    flow: Annotated[str | None, typer.Option("--flow", "-f", help="Of one flow.")] = None,
    user: Annotated[str | None, typer.Option(help="Of one user.")] = None,
    limit: Annotated[int, typer.Option(help="Most runs to list.", min=1, max=_MAX_LIMIT)] = 20,
    every: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with command(as_json) as cmd, cmd.client() as client:
        filters = _filters(status or [], flow, user, _PAGE if every else min(limit + 1, _PAGE))
        rows = client.iter_runs(**filters)
        if as_json:
            for row in rows if every else islice(rows, limit):
                cmd.output.json(row.model_dump(mode="json"))
            return
        listed = list(rows if every else islice(rows, limit + 1))
        _show(cmd, listed if every else listed[:limit])
        if not every and len(listed) > limit:
            cmd.output.note("there are more: --limit N, or --all", "dim")


def _filters(status: list[str], flow: str | None, user: str | None, page: int) -> RunFilters:
    wrong = [word for word in status if word not in _STATUSES]
    if wrong:
        allowed = ", ".join(_STATUSES)
        raise ValidationError(f"--status {wrong[0]!r} is not allowed. Allowed: {allowed}", param="status")
    filters: RunFilters = {"limit": page}
    if status:
        filters["status"] = tuple(status)
    if flow is not None:
        filters["flow"] = flow
    if user is not None:
        filters["user"] = user
    return filters


def _show(cmd: Command, rows: list[RunRow]) -> None:
    if not rows:
        cmd.output.note("no runs")
        return
    now = time.time()
    cells = [
        (
            row.run_id,
            row.status,
            row.flow,
            ago(now, row.created_at),
            "" if row.duration_s is None else f"{row.duration_s:.1f} s",
            "" if row.usage is None else cost(row.usage),
            _short(row.prompt),
        )
        for row in rows
    ]
    show_table(cmd.output, ("RUN", "STATUS", "FLOW", "CREATED", "TOOK", "COST", "QUESTION"), cells)


def ago(now: float, then: float | None) -> str:
    """How long ago, in the largest unit that fits."""
    if then is None:
        return ""
    past_s = max(0.0, now - then)
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if past_s >= length_s:
            return f"{past_s / length_s:.0f} {unit} ago"
    return f"{past_s:.0f} s ago"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PROMPT_CHARS else line[: _PROMPT_CHARS - 1] + "…"
