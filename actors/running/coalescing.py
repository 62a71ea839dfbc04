"""Tokens that follow each other travel together: one item through an actor generator costs 0.4 ms."""

from __future__ import annotations

from collections.abc import Iterable

from registries.contracts.runs import TOKEN_EVENT, RunEvent


def is_durable(event: RunEvent) -> bool:
    """Whether the event is committed; tokens are not, node.completed has their text again."""
    return event.type != TOKEN_EVENT


def coalesced(events: Iterable[RunEvent]) -> list[RunEvent]:
    """The same events with neighbouring tokens of one node, attempt and seq merged into one.

    Texts are joined and token counts added; every other field is the first one's.
    """
    merged: list[RunEvent] = []
    for event in events:
        last = merged[-1] if merged else None
        if last is not None and _joins(last, event):
            data = {**last.data, "text": str(last.data.get("text", "")) + str(event.data.get("text", ""))}
            if "tokens" in last.data or "tokens" in event.data:
                data["tokens"] = int(last.data.get("tokens", 0)) + int(event.data.get("tokens", 0))
            merged[-1] = last.model_copy(update={"data": data})
        else:
            merged.append(event)
    return merged


def _joins(last: RunEvent, event: RunEvent) -> bool:
    if event.type != TOKEN_EVENT or last.type != TOKEN_EVENT:
        return False
    same = (last.node, last.attempt, last.seq) == (event.node, event.attempt, event.seq)
    others_equal = {k: v for k, v in last.data.items() if k not in ("text", "tokens")} == {
        k: v for k, v in event.data.items() if k not in ("text", "tokens")
    }
    return same and others_equal
