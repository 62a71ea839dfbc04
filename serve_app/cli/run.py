"""`parley run`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from registries.contracts.errors import InternalError, ValidationError
from registries.contracts.runs import RunRequest, RunResult
from serve_app.cli.command import Command, command, request_from
from serve_app.cli.event_screen import show_events
from serve_app.cli.exit_codes import exit_code_of_run
from serve_app.cli.options import AsJson, Deadline, MaxTokens, Prompt, PromptOption, Seed, Strategy, Stream
from serve_app.cli.prompt_input import question_from
from serve_app.cli.show_result import TranscriptPrinter, show_run
from serve_app.cli.transcript import transcript_of

if TYPE_CHECKING:
    from serve_app.client.client import Client

DEMO_QUESTION = "What is 512 - 187?"
DEMO_FLOW = "challenge"


def run(
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    flow: Annotated[
        str | None, typer.Option("--flow", "-f", help=f"A flow's name; default {DEMO_FLOW}.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="ROLE=MODEL, repeatable: another model for a role."),
    ] = None,
    strategy: Strategy = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    deadline: Deadline = None,
    target: Annotated[
        str | None, typer.Option(help="The known right answer; measures the improvement.")
    ] = None,
    stream: Stream = None,
    background: Annotated[
        bool, typer.Option("--background", "-b", help="Print the run's id and do not wait for it.")
    ] = False,
    priority: Annotated[
        int | None, typer.Option(help="-10 to 10: queued runs of a higher one start first.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="PROMPT and FLOW from the environment, and where to go next.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a deliberation on the running runtime."""
    with command(as_json) as cmd:
        fallback = (cmd.settings.demo_prompt or DEMO_QUESTION) if demo else None
        request = request_from(
            RunRequest,
            prompt=question_from(prompt, prompt_option, sys.stdin, fallback),
            flow_type=flow or (cmd.settings.demo_flow if demo else None) or DEMO_FLOW,
            models=models_by_role(model or []) or None,
            strategy=strategy,
            max_tokens=max_tokens,
            seed=seed,
            deadline_s=deadline,
            target=target,
            priority=priority,
        )
        if background:
            _hand_over(cmd, request, bool(stream), demo)
            return
        result = _run(cmd, request, _streams(cmd, stream, demo), demo)
        raise typer.Exit(exit_code_of_run(result.status))


def models_by_role(pairs: list[str]) -> dict[str, str]:
    """``["creator=nano-m"]`` as a mapping; raises ValidationError for anything else."""
    found: dict[str, str] = {}
    for pair in pairs:
        role, sign, key = pair.partition("=")
        if not sign or not role.strip() or not key.strip():
            raise ValidationError(
                f"--model {pair!r} is not allowed. Allowed: ROLE=MODEL, such as creator=nano-m",
                param="models",
            )
        if role.strip() in found:
            raise ValidationError(f"--model names the role {role.strip()!r} twice", param="models")
        found[role.strip()] = key.strip()
    return found


def _streams(cmd: Command, stream: bool | None, demo: bool) -> bool:
    if stream is not None:
        return stream
    return demo or (cmd.output.is_terminal and not cmd.output.as_json)


def _hand_over(cmd: Command, request: RunRequest, stream: bool, demo: bool) -> None:
    """The id alone on stdout, so that a script can keep it."""
    if stream or demo:
        other = "--stream" if stream else "--demo"
        raise ValidationError(f"--background does not wait, so {other} has nothing to show", param="mode")
    with cmd.client() as client:
        made = client.create_run(request)
    if cmd.output.as_json:
        cmd.output.json(made.model_dump(mode="json"))
    else:
        cmd.output.line(made.run_id)
        cmd.output.note(f"see it: parley runs watch {made.run_id}", "dim")


def _run(cmd: Command, request: RunRequest, stream: bool, demo: bool) -> RunResult:
    from serve_app.cli.demo import before_demo, demo_pointers

    with cmd.client() as client:
        if not cmd.output.as_json:
            before_demo(cmd, client, request, demo)
        result = _streamed(cmd, client, request) if stream else client.run(request)
    if cmd.output.as_json:
        if not stream:
            cmd.output.json(result.model_dump(mode="json"))
        return result
    if not stream:
        printer = TranscriptPrinter(cmd.output)
        for piece in transcript_of(result.nodes):
            printer.show(piece)
        printer.close()
    show_run(cmd.output, result)
    if demo:
        demo_pointers(cmd, request)
    return result


def _streamed(cmd: Command, client: Client, request: RunRequest) -> RunResult:
    result = show_events(cmd.output, client.stream_run(request))
    if result is None:
        raise InternalError("the run ended without a result")
    return result
