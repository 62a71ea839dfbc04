"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout; NDJSON for streams.")]
Prompt = Annotated[
    str | None, typer.Argument(help="The question; - reads it from standard input.", show_default=False)
]
PromptOption = Annotated[str | None, typer.Option("--prompt", "-p", help="The question, as an option.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens that one model call may write.")
]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeatable where the engine allows.")]
Strategy = Annotated[str | None, typer.Option(help="A strategy's name (see GET /api/strategies).")]
Deadline = Annotated[float | None, typer.Option("--deadline", help="Most seconds that it may take.")]
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream", help="Show words as they come; the default on a terminal.", show_default=False
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="A run's whole id (see `parley runs list`).")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it live until it ends or waits for you.")]
