"""`parley run`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from registries.contracts.errors import InternalError, ValidationError
from registries.contracts.runs import TERMINAL_EVENTS, RunRequest, RunResult
from serve_app.cli.command import Command, command, request_from
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson, Deadline, MaxTokens, Prompt, PromptOption, Seed, Strategy, Stream
from serve_app.cli.prompt_input import question_from
from serve_app.cli.show_result import TranscriptPrinter, show_run
from serve_app.cli.transcript import Transcript, transcript_of

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
        )
        result = _run(cmd, request, _streams(cmd, stream, demo), demo)
        raise typer.Exit(ExitCode.OK if result.status == "completed" else ExitCode.FAILED)


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


def _streamed(cmd: Command, client: Any, request: RunRequest) -> RunResult:
    """Print events as they come; the result of the last one. Raises InternalError when it carries none."""
    transcript, printer = Transcript(), TranscriptPrinter(cmd.output)
    result: RunResult | None = None
    for event in client.stream_run(request):
        if cmd.output.as_json:
            cmd.output.json(event.model_dump(mode="json"))
        else:
            for piece in transcript.feed(event):
                printer.show(piece)
        if event.type in TERMINAL_EVENTS:
            result = _result_of(event.data)
    if not cmd.output.as_json:
        for piece in transcript.rest():
            printer.show(piece)
        printer.close()
    if result is None:
        raise InternalError("the run ended without a result")
    return result


def _result_of(data: dict[str, Any]) -> RunResult | None:
    from serve_app.client.answers import run_result

    told = data.get("result")
    return run_result(told) if isinstance(told, dict) else None
