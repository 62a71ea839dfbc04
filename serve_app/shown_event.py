"""An event on its way to readers, encoded once for all of them."""

from __future__ import annotations

from functools import cached_property

from registries.contracts.runs import TERMINAL_EVENTS, TOKEN_EVENT, RunEvent


class ShownEvent:
    """A RunEvent with its JSON, made when the first reader needs it."""

    def __init__(self, event: RunEvent) -> None:
        self.event = event

    @cached_property
    def json(self) -> bytes:
        """The event as JSON on one line."""
        return self.event.model_dump_json().encode()

    @property
    def is_token(self) -> bool:
        """Whether the event is volatile; its seq is then that of the last durable one."""
        return self.event.type == TOKEN_EVENT

    def is_news(self, seen: int) -> bool:
        """Whether a reader who has the durable events up to ``seen`` still wants it."""
        return self.event.seq >= seen if self.is_token else self.event.seq > seen


def shown(events: list[RunEvent]) -> list[ShownEvent]:
    """Each of them, to be encoded once."""
    return [ShownEvent(event) for event in events]


def last_durable(events: list[ShownEvent]) -> RunEvent | None:
    """The last event of a batch that is no token."""
    return next((item.event for item in reversed(events) if not item.is_token), None)


def is_over(event: RunEvent | None, until_waiting: bool) -> bool:
    """Whether a stream that has come to this event ends.

    Asked of the newest event only: a restarted or resumed run has an end, or a wait, in its past.
    """
    if event is None:
        return False
    return event.type in TERMINAL_EVENTS or (until_waiting and event.type == "run.waiting")
