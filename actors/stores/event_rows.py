"""A run's events as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.stores.database import Transaction
from actors.stores.json_text import dump_json
from registries.contracts.runs import EventType, RunEvent

EventRow = tuple[str, int, float, str, str | None, int, str]
_INSERT = "INSERT INTO events (run_id, seq, time, type, node, attempt, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD = "INSERT INTO events (run_id, seq, time, type, node, attempt, data) VALUES (?, ?, {now}, ?, NULL, ?, ?)"


def event_rows(events: Sequence[RunEvent]) -> list[EventRow]:
    """The events as they are written; raises TypeError for data that is not JSON."""
    return [(e.run_id, e.seq, e.time, e.type, e.node, e.attempt, dump_json(e.data)) for e in events]


def insert_events(tx: Transaction, rows: Sequence[EventRow]) -> None:
    """Write them."""
    tx.executemany(_INSERT, rows)


def add_event(
    tx: Transaction, run_id: str, seq: int, type: EventType, attempt: int, data: Mapping[str, Any]
) -> None:
    """Write one event of the store's own, at the database's time. ``attempt`` counts claims, 0 before any."""
    tx.executemany(_ADD, [(run_id, seq, type, max(1, attempt), dump_json(data))])
