"""One followed run in this process: where its events come from and who gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from registries.contracts.runs import TOKEN_EVENT, RunEvent
from serve_app.event_reader import EventReader
from serve_app.shown_event import shown


class RunTopic:
    """Fans a run's events out, each durable one once, whoever brings it: a runner's stream or the store.

    ``seq`` is the last durable event that was fanned out; None until somebody knows where to begin, and
    nothing is read from the store for it until then. ``fed`` while a runner's stream brings the events;
    ``begun`` once a runner has told anything of it; ``wanted`` once somebody needs what the store has.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.seq: int | None = None
        self.fed = False
        self.begun = False
        self.wanted = False
        self.users = 0
        self.readers: set[EventReader] = set()
        self.listeners: set[Callable[[RunEvent], None]] = set()

    @property
    def is_followed(self) -> bool:
        """Whether its events must be read from the store."""
        return self.wanted and self.seq is not None and not self.fed

    def begin(self, seq: int) -> None:
        """Fan out what comes after ``seq``, unless it is known already."""
        if self.seq is None:
            self.seq = seq

    def publish(self, events: Sequence[RunEvent]) -> int:
        """Fan out what is new; how many durable events were.

        A gap is let through: readers see it and read what they lack (a run's first event, written where it
        was accepted, never comes from a runner).
        """
        seq = self.seq or 0
        fresh = []
        for event in events:
            if event.type == TOKEN_EVENT:
                if event.seq >= seq:
                    fresh.append(event)
            elif event.seq > seq:
                seq = event.seq
                fresh.append(event)
        news = seq - (self.seq or 0)
        self.seq = seq
        if fresh:
            self._tell(fresh)
        return news

    def _tell(self, events: list[RunEvent]) -> None:
        for listener in list(self.listeners):
            for event in events:
                listener(event)
        if not self.readers:
            return
        items = shown(events)
        for reader in list(self.readers):
            reader.push(items)
            if reader.is_cut:
                self.readers.discard(reader)
