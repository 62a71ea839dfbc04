"""A run's events as a readable conversation, also when several experts speak at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registries.contracts.runs import NodeResult, RunEvent

Kind = Literal["heading", "words", "fact", "failure"]


_NEWS = {
    "run.resumed": "a human has answered; the run goes on",
    "run.restarted": "the run was restarted after its last committed step",
    "run.released": "the run was handed over to another runner",
}
"""What happens to a run as a whole and is worth a line; its begin and end are shown otherwise."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to print. ``words`` go on in the same line, everything else is a line."""

    kind: Kind
    text: str


@dataclass(slots=True)
class _Speaker:
    """One visit of one node."""

    role: str
    attempt: int = 1
    said: str = ""
    waiting: list[Piece] = field(default_factory=list)
    done: bool = False


class Transcript:
    """Feed events in order, print the pieces in order.

    One node at a time speaks live; what others say meanwhile is kept and printed, whole, when it is their
    turn (in the order in which they started). Nothing is lost and nothing is mixed.
    """

    def __init__(self) -> None:
        self._speakers: dict[tuple[str, int], _Speaker] = {}

    def feed(self, event: RunEvent) -> Iterator[Piece]:
        """What can be printed after this event."""
        if event.type in _NEWS:
            yield Piece("fact", _NEWS[event.type])
        elif event.type == "round.started":
            yield from self._round(event)
        elif event.node is not None:
            self._take(event, event.node)
            yield from self._ready()

    def rest(self) -> Iterator[Piece]:
        """What is still held back when the run is over."""
        for speaker in self._speakers.values():
            speaker.done = True
        yield from self._ready()

    def _round(self, event: RunEvent) -> Iterator[Piece]:
        number = event.data.get("round")
        if isinstance(number, int) and number > 1:
            yield Piece("fact", f"round {number}")

    def _take(self, event: RunEvent, node: str) -> None:
        data: Mapping[str, Any] = event.data
        speaker = self._speaker(event, node)
        if event.type == "node.token":
            text = str(data.get("text", ""))
            speaker.said += text
            speaker.waiting.append(Piece("words", text))
        elif event.type == "node.completed":
            self._complete(speaker, data)
        elif event.type == "node.failed":
            speaker.waiting.append(Piece("failure", f"failed: {_reason(data)}"))
            speaker.done = True
        elif event.type == "node.skipped":
            speaker.waiting.append(Piece("fact", f"skipped{_because(data)}"))
            speaker.done = True

    def _speaker(self, event: RunEvent, node: str) -> _Speaker:
        """Who speaks; a new attempt starts its words anew, under the same heading."""
        visit = event.data.get("visit")
        key = (node, visit if isinstance(visit, int) else 1)
        speaker = self._speakers.get(key)
        if speaker is None:
            role = str(event.data.get("role") or node)
            speaker = self._speakers[key] = _Speaker(role, event.attempt)
            speaker.waiting.append(Piece("heading", role))
        if event.attempt > speaker.attempt:
            speaker.attempt, speaker.said = event.attempt, ""
            speaker.waiting.append(Piece("fact", f"attempt {event.attempt}"))
        return speaker

    def _complete(self, speaker: _Speaker, data: Mapping[str, Any]) -> None:
        text = str(data.get("text") or "")
        if text.startswith(speaker.said) and text != speaker.said:
            speaker.waiting.append(Piece("words", text[len(speaker.said) :]))
        elif len(speaker.said) < len(text) and _is_part_of(speaker.said, text):
            speaker.waiting.append(Piece("fact", "some words did not arrive as they were said; the whole:"))
            speaker.waiting.append(Piece("words", text))
        speaker.waiting.append(Piece("fact", node_facts(data)))
        speaker.done = True

    def _ready(self) -> Iterator[Piece]:
        for key in list(self._speakers):
            speaker = self._speakers[key]
            yield from speaker.waiting
            speaker.waiting = []
            if not speaker.done:
                return
            del self._speakers[key]


def transcript_of(nodes: tuple[NodeResult, ...]) -> Iterator[Piece]:
    """The same conversation from a finished result."""
    for node in nodes:
        yield Piece("heading", node.role or node.id)
        if node.status == "failed":
            yield Piece("failure", f"failed: {node.error.message if node.error else 'no reason given'}")
        elif node.status == "skipped":
            yield Piece("fact", f"skipped{_because(node.model_dump())}")
        else:
            yield Piece("words", node.text)
            yield Piece("fact", node_facts(node.model_dump(mode="json")))


def node_facts(data: Mapping[str, Any]) -> str:
    """Model, tokens and seconds of a completed node, in one line."""
    usage, timings = data.get("usage") or {}, data.get("timings") or {}
    parts = [str(data["model_resolved"])] if data.get("model_resolved") else []
    if usage.get("completion_tokens"):
        parts.append(f"{usage['completion_tokens']} tokens")
    if timings.get("duration_s") is not None:
        parts.append(f"{timings['duration_s']:.2f} s")
    failed = [a for a in data.get("attempts") or () if a.get("outcome") not in (None, "ok")]
    if failed:
        parts.append(f"after {len(failed)} failed attempt{'s' if len(failed) > 1 else ''}")
    if data.get("cache_hit"):
        parts.append("from the cache")
    return ", ".join(parts) or "done"


def _is_part_of(said: str, text: str) -> bool:
    """Whether leaving out signs of the text gives what was said: then tokens were missed."""
    signs = iter(text)
    return all(sign in signs for sign in said)


def _reason(data: Mapping[str, Any]) -> str:
    error = data.get("error")
    return str(error.get("message") if isinstance(error, dict) else error or "no reason given")


def _because(data: Mapping[str, Any]) -> str:
    own = data.get("data")
    reason = own.get("reason") if isinstance(own, dict) else None
    return f": {reason}" if reason else ""
