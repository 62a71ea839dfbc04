"""A run's events on the screen as they come: NDJSON, or a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registries.contracts.runs import RunEvent, RunResult
from serve_app.cli.output import Output
from serve_app.cli.show_result import TranscriptPrinter
from serve_app.cli.transcript import Transcript


def show_events(output: Output, events: Iterable[RunEvent]) -> RunResult | None:
    """Print them all; the result that the last one carries, None when there was none.

    Who interrupts is told how to come back, because the run goes on.
    """
    transcript, printer = Transcript(), TranscriptPrinter(output)
    last: RunEvent | None = None
    try:
        for event in events:
            last = event
            if output.as_json:
                output.json(event.model_dump(mode="json"))
            else:
                for piece in transcript.feed(event):
                    printer.show(piece)
    except KeyboardInterrupt:
        if last is not None:
            output.note(f"the run goes on: parley runs watch {last.run_id}")
        raise
    if not output.as_json:
        for piece in transcript.rest():
            printer.show(piece)
        printer.close()
    return _result_of(last.data) if last is not None else None


def _result_of(data: dict[str, Any]) -> RunResult | None:
    from serve_app.client.answers import run_result

    told = data.get("result")
    return run_result(told) if isinstance(told, dict) else None
