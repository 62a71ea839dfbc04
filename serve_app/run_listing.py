"""The query of GET /api/runs: filters and the place to go on from."""

from __future__ import annotations

import math
import zlib
from datetime import UTC, datetime
from typing import get_args

from starlette.datastructures import QueryParams

from actors.stores.records import RunFilter
from registries.contracts.errors import ValidationError
from registries.contracts.runs import RunStatus
from serve_app.query import check_known, one_value

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_AFTER = "after:"
_TEXTS = ("flow", "user", "conversation_id", "parent", "cursor")
_TIMES = ("created_after", "created_before")
PARAMETERS = {
    "status": "queued, running, waiting, completed, failed, cancelled; repeated, or separated by commas",
    "flow": "runs of this flow",
    "user": "runs of this user",
    "conversation_id": "runs of this conversation",
    "parent": "forks of this run",
    "created_after": "at or after this time: seconds since the epoch, or ISO 8601",
    "created_before": "before this time",
    "limit": f"1 to {MAX_LIMIT}, default {DEFAULT_LIMIT}",
    "cursor": "next_cursor of the page before",
}
"""Names and what they mean."""


def run_filter(query: QueryParams) -> RunFilter:
    """The filter that the query asks for; raises ValidationError naming the parameter at fault."""
    check_known(query, tuple(PARAMETERS))
    texts = {name: one_value(query, name) for name in _TEXTS}
    times = {name: _time(query, name) for name in _TIMES}
    return RunFilter(
        statuses=_statuses(query),
        flow=texts["flow"],
        user=texts["user"],
        conversation_id=texts["conversation_id"],
        parent=texts["parent"],
        created_after=times["created_after"],
        created_before=times["created_before"],
        before=_place(texts["cursor"]),
        limit=_limit(query),
    )


def cursor_after(run_id: str) -> str:
    """The cursor of the page that goes on after this run, with a checksum at its end."""
    return f"{_AFTER}{run_id}:{zlib.crc32(run_id.encode()):08x}"


def _place(cursor: str | None) -> str | None:
    # Any text compares with ids, and a wrong one would be a page like any other, often the first. The
    # checksum tells them apart without a look at the store: the run may have been removed since.
    if cursor is None:
        return None
    run_id = cursor.removeprefix(_AFTER).rpartition(":")[0]
    if not run_id or cursor != cursor_after(run_id):
        raise ValidationError(f"cursor: {cursor!r} is no next_cursor of a page before", param="cursor")
    return run_id


def _statuses(query: QueryParams) -> tuple[RunStatus, ...]:
    known: tuple[RunStatus, ...] = get_args(RunStatus)
    found: dict[RunStatus, None] = {}
    for part in (part.strip() for value in query.getlist("status") for part in value.split(",")):
        match = next((status for status in known if status == part), None)
        if match is None:
            allowed = ", ".join(known)
            raise ValidationError(f"status: {part!r} is not allowed; allowed: {allowed}", param="status")
        found[match] = None
    return tuple(found)


def _limit(query: QueryParams) -> int:
    text = one_value(query, "limit")
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_LIMIT:
        raise ValidationError(f"limit: {text!r} is not allowed: 1 to {MAX_LIMIT}", param="limit")
    return int(text)


def _time(query: QueryParams, name: str) -> float | None:
    text = one_value(query, name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _iso_seconds(text, name)
    if not math.isfinite(seconds):
        raise _no_time(name, text)
    return seconds


def _iso_seconds(text: str, name: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _no_time(name, text) from None
    # Without a zone it is meant as the runtime's other times are: UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _no_time(name: str, text: str) -> ValidationError:
    return ValidationError(f"{name}: {text!r} is neither seconds since the epoch nor ISO 8601", param=name)
