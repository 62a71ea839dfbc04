"""`parley runs show`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from registries.contracts.runs import NodeResult, RunEvent
from serve_app.cli.command import Command, command
from serve_app.cli.options import AsJson, RunId
from serve_app.cli.output import Output
from serve_app.cli.show_result import cost, improvement, show_waiting, tokens
from serve_app.cli.table import show_table

if TYPE_CHECKING:
    from serve_app.client.answers import RunDetail


def show(
    run_id: RunId,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Also what happened, event by event.")] = True,
    state: Annotated[
        bool, typer.Option("--state", help="Also the last checkpoint, and those to fork from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run: what was asked, what came out, its nodes, costs and attempts."""
    with command(as_json) as cmd, cmd.client() as client:
        detail = client.get_run(run_id, log, state)
        if as_json:
            cmd.output.json(detail.model_dump(mode="json"))
            return
        _show_facts(cmd, detail)
        _show_nodes(cmd.output, detail.nodes)
        if state:
            _show_state(cmd.output, detail)
        if log:
            _show_log(cmd.output, detail.execution_log)


def _show_facts(cmd: Command, run: RunDetail) -> None:
    """The lines above the tables; what is not known is left out."""
    say = cmd.output.line
    say(f"{'run':<12} {run.run_id}", "bold")
    say(f"{'status':<12} {run.status}{_why(run)}")
    say(f"{'flow':<12} {run.flow}  (version {run.flow_version[:12]})")
    question = run.request.get("prompt") or run.prompt
    if question:
        say(f"{'question':<12} {question}")
    if run.answer:
        say(f"{'answer':<12} {run.answer}", "bold")
    if run.parent:
        say(f"{'forked from':<12} {run.parent}")
    say(f"{'created':<12} {_time(run.created_at)}{'  by ' + run.user if run.user else ''}")
    if run.timings is not None:
        of_which = f", of attempt {run.attempts}" if run.attempts > 1 else ""
        say(f"{'time':<12} {run.timings.total_s:.2f} s, {run.timings.queued_s:.2f} s queued{of_which}")
    deaths = f", {run.deaths} ended by a runner that died" if run.deaths else ""
    say(f"{'attempts':<12} {run.attempts}{deaths}")
    if run.usage is not None:
        say(f"{'tokens':<12} {tokens(run.usage)}")
        say(f"{'cost':<12} {cost(run.usage)}")
    if run.improvement is not None and run.ended:
        say(f"{'improvement':<12} {improvement(run.improvement)}")
    if run.artifact:
        say(f"{'saved in':<12} {run.artifact}")
    for given in run.feedback:
        said = f": {given.comment}" if given.comment else ""
        say(f"{'rated':<12} {given.rating:g} by {given.user}{said}")
    if run.status == "waiting":
        show_waiting(cmd.output, run.run_id, run.waiting)


def _why(run: RunDetail) -> str:
    if run.error is not None:
        return f"  ({run.error.code}: {run.error.message})"
    return "  (to be stopped)" if run.cancel_requested and not run.ended else ""


def _show_nodes(output: Output, nodes: tuple[NodeResult, ...]) -> None:
    if not nodes:
        return
    rows = [
        (
            node.role or node.id,
            str(node.visit),
            node.status + (f" ({node.error.code})" if node.error else ""),
            node.model_resolved or "",
            f"{node.usage.prompt_tokens} + {node.usage.completion_tokens}",
            cost(node.usage),
            f"{node.timings.duration_s:.2f} s",
            str(len(node.attempts)),
        )
        for node in nodes
    ]
    output.line()
    show_table(output, ("NODE", "VISIT", "STATUS", "MODEL", "TOKENS", "COST", "TOOK", "TRIES"), rows)


def _show_state(output: Output, run: RunDetail) -> None:
    output.line()
    rows = [
        (fact.checkpoint_id, "" if fact.step is None else str(fact.step), ", ".join(fact.next))
        for fact in run.checkpoints
    ]
    show_table(output, ("CHECKPOINT", "STEP", "NEXT"), rows)
    output.line()
    output.line(json.dumps(run.state, indent=2, ensure_ascii=False))


def _show_log(output: Output, log: tuple[RunEvent, ...]) -> None:
    if not log:
        return
    began = log[0].time
    rows = [
        (str(event.seq), f"{event.time - began:.2f} s", event.type, event.node or "", str(event.attempt))
        for event in log
    ]
    output.line()
    show_table(output, ("SEQ", "AFTER", "EVENT", "NODE", "ATTEMPT"), rows)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
