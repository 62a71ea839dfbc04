"""A run's result in a few lines."""

from __future__ import annotations

from registries.contracts.generation import GenerationResult, Usage
from registries.contracts.runs import Improvement, RunResult, Waiting
from serve_app.cli.output import Output
from serve_app.cli.transcript import Piece

_STYLES = {"heading": "bold", "words": "", "fact": "dim", "failure": "red"}


class TranscriptPrinter:
    """Prints pieces and knows whether a line is open."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._open = False
        self._first = True

    def show(self, piece: Piece) -> None:
        """Print one piece."""
        if piece.kind == "words":
            if piece.text:
                self._output.words(piece.text)
                self._open = not piece.text.endswith("\n")
            return
        self.close()
        if piece.kind == "heading":
            if not self._first:
                self._output.line()
            self._first = False
            self._output.line(piece.text, _STYLES["heading"])
        else:
            self._output.line(f"  {piece.text}", _STYLES[piece.kind])

    def close(self) -> None:
        """End the open line."""
        if self._open:
            self._output.line()
            self._open = False


def show_run(output: Output, result: RunResult) -> None:
    """The answer, then how it came to be."""
    output.line()
    if result.status == "completed":
        output.line(f"{'answer':<12} {result.answer}", "bold")
    elif result.status == "waiting":
        show_waiting(output, result.run_id, result.waiting)
    else:
        reason = result.error.message if result.error else "no reason given"
        output.line(f"{result.status:<12} {reason}", "bold red")
    rounds = f", {result.rounds} round{'s' if result.rounds != 1 else ''}" if result.rounds else ""
    output.line(f"{'flow':<12} {result.flow}{rounds}")
    output.line(f"{'time':<12} {result.timings.total_s:.2f} s")
    output.line(f"{'tokens':<12} {tokens(result.usage)}")
    output.line(f"{'cost':<12} {cost(result.usage)}")
    output.line(f"{'improvement':<12} {improvement(result.improvement)}")
    if result.artifact:
        output.line(f"{'saved in':<12} {result.artifact}")
    output.line(f"{'run':<12} {result.run_id}")
    for notice in result.notices:
        output.note(f"note: {notice}", "yellow")


def show_waiting(output: Output, run_id: str, waiting: Waiting | None) -> None:
    """What a run that waits for a human wants to know, and how to answer just that."""
    asked = waiting or Waiting(node="?", interrupt_id="")
    output.line(f"{'waiting':<12} {asked.question or 'for a decision'}  (node {asked.node})", "bold yellow")
    if asked.text:
        output.line(f"{'text':<12} {asked.text}")
    told = {"approve": "--approve", "edit": "--edit TEXT", "reject": "--reject"}
    ways = " | ".join(told[action] for action in asked.actions if action in told)
    question = f" --question {asked.interrupt_id}" if asked.interrupt_id else ""
    output.line(f"{'answer it':<12} parley runs resume {run_id}{question} {ways}")


def generation_facts(result: GenerationResult) -> str:
    """Model, tokens, time and cost of one model call, in one line."""
    return (
        f"{result.model_resolved} ({result.source}), {tokens(result.usage)}, "
        f"{result.timings.total:.2f} s, {cost(result.usage)}, ended by {result.finish_reason}"
    )


def tokens(usage: Usage) -> str:
    """Tokens in and out."""
    about = " (estimated)" if usage.estimated else ""
    return f"{usage.prompt_tokens} in, {usage.completion_tokens} out{about}"


def cost(usage: Usage) -> str:
    """US dollars, to the micro-dollar that we count in."""
    return f"${usage.cost:.6f}"


def improvement(fact: Improvement) -> str:
    """The measured difference between first and final answer, or why there is none."""
    if fact.delta is None:
        return f"not measured: {fact.reason or 'nothing could judge it'}"
    return f"{fact.delta:+.2f} (first {fact.first_score:.2f}, final {fact.final_score:.2f}, by {fact.method})"
