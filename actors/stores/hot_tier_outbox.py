"""What is on its way to Redis: bounded, the oldest is dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.stores.redis_layout import encode, is_end, state_after
from registries.contracts.runs import TOKEN_EVENT, RunEvent

MAX_ENTRIES = 10_000
MAX_BYTES = 16_000_000
MAX_EVENT_BYTES = 1_000_000
"""A larger event is left to the database; readers see the gap and get it there."""


@dataclass(slots=True)
class RunNews:
    """One run's part of one sending: (seq, is_token, JSON) in order, fields of its hash.

    ``ended``: it has come to its end; ``anew``: what Redis has of it is replaced.
    """

    entries: list[tuple[int, bool, str]] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    anew: bool = False


@dataclass(slots=True)
class _Entry:
    run_id: str
    seq: int
    is_token: bool
    json: str


class HotTierOutbox:
    """Collects news of runs until they are taken together.

    A durable event comes twice, from its commit and among the tokens around it: it is taken once, before the
    tokens that carry its seq.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._states: dict[str, dict[str, str]] = {}
        self._ended: dict[str, bool] = {}
        self._last: dict[str, int] = {}
        self._anew: set[str] = set()
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._entries or self._states)

    def add_events(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Take events, and what they say of the run's state."""
        for event in events:
            if event.type != TOKEN_EVENT:
                if event.seq <= self._last.get(run_id, 0):
                    continue
                self._last[run_id] = event.seq
            self._add(event)
        self._add_state_after(run_id, events)

    def replace(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Take durable events that are to be there instead of what Redis has of the run."""
        self._anew.add(run_id)
        for event in events:
            self._add(event)
        self._add_state_after(run_id, events)
        self._last[run_id] = max(self._last.get(run_id, 0), *(event.seq for event in events), 0)

    def _add(self, event: RunEvent) -> None:
        try:
            json = encode(event)
        except (TypeError, ValueError):
            # Not JSON: the database refuses it as well, and says so.
            return
        if len(json) <= MAX_EVENT_BYTES:
            self._entries.append(_Entry(event.run_id, event.seq, event.type == TOKEN_EVENT, json))
            self._bytes += len(json)

    def _add_state_after(self, run_id: str, events: Sequence[RunEvent]) -> None:
        state = state_after(events)
        if state:
            self.add_state(run_id, state)
            self._ended[run_id] = is_end(events)
        self._shrink()

    def add_state(self, run_id: str, state: dict[str, str]) -> None:
        """Take fields of the run's hash."""
        self._states.setdefault(run_id, {}).update(state)
        self._shrink()

    def take(self) -> dict[str, RunNews]:
        """All of it, by run."""
        news: dict[str, RunNews] = {}
        for entry in self._entries:
            run = news.setdefault(entry.run_id, RunNews())
            run.entries.append((entry.seq, entry.is_token, entry.json))
        for run in news.values():
            run.entries = _in_order(run.entries)
        for run_id, state in self._states.items():
            run = news.setdefault(run_id, RunNews())
            run.state, run.ended = state, self._ended.get(run_id, False)
        for run_id in self._anew & news.keys():
            news[run_id].anew = True
        self.clear()
        return news

    def clear(self) -> None:
        """Drop all of it."""
        self._entries.clear()
        self._bytes = 0
        self._states, self._ended, self._last, self._anew = {}, {}, {}, set()

    def _shrink(self) -> None:
        while self._entries and (len(self._entries) > self._max_entries or self._bytes > self._max_bytes):
            self._bytes -= len(self._entries.popleft().json)
            self.dropped += 1
        while len(self._states) > self._max_entries:
            oldest = next(iter(self._states))
            del self._states[oldest]
            self._ended.pop(oldest, None)
            self.dropped += 1


def _in_order(entries: list[tuple[int, bool, str]]) -> list[tuple[int, bool, str]]:
    # Stable: tokens of one seq keep their order. A run that is filled again brings some events twice.
    ordered = sorted(entries, key=lambda entry: entry[:2])
    pairs = zip([None, *ordered], ordered, strict=False)
    return [entry for last, entry in pairs if entry[1] or last is None or last[:2] != entry[:2]]
