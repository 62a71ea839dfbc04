"""A run's status as its events tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registries.contracts.runs import RunStatus
from serve_app.shown_event import ShownEvent

STATUS_AFTER: Mapping[str, RunStatus] = {
    "run.queued": "queued",
    "run.started": "running",
    "run.waiting": "waiting",
    "run.resumed": "queued",
    "run.restarted": "queued",
    "run.released": "queued",
    "run.completed": "completed",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}
"""Every transition is an event; events of nodes change nothing."""


def status_after(events: Sequence[ShownEvent], before: RunStatus) -> RunStatus:
    """The status after these events; ``before`` when none of them changes it."""
    for item in reversed(events):
        if item.event.type in STATUS_AFTER:
            return STATUS_AFTER[item.event.type]
    return before
