"""How runs lie in Redis: keys, entries, and what may be concluded from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actors.stores.json_text import dump_json, load_json
from registries.contracts.runs import TERMINAL_EVENTS, TOKEN_EVENT, RunEvent, RunStatus

FIELD = b"e"
EntryId = tuple[int, int]
_STATUS_AFTER: dict[str, RunStatus] = {
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


class RedisKeys:
    """The keys of one runtime (``instance``), as one of its processes uses them.

    ``known`` says that Redis still has what this process wrote: it is missing after a flush.
    """

    def __init__(self, instance: str, process: str) -> None:
        self._prefix = f"parley:{instance}:"
        self.all_runs = f"{_quoted(self._prefix)}run:*"
        self.known = f"{self._prefix}known:{process}"

    def events(self, run_id: str) -> str:
        """The run's stream."""
        return f"{self._prefix}run:{run_id}:events"

    def state(self, run_id: str) -> str:
        """The run's hash."""
        return f"{self._prefix}run:{run_id}:state"


def entry_id(seq: int, is_token: bool) -> str:
    """A durable event is entry ``seq-0``, the tokens after it ``seq-1``, ``seq-2`` …

    Redis refuses an id that is not above the last one: a durable event is in the stream at most once, and
    what a runner sends late, after another one took the run over, does not get in at all.
    """
    return f"{seq}-*" if is_token else f"{seq}-0"


def position(raw: bytes) -> EntryId:
    """An entry's id as numbers, to compare."""
    seq, _, number = raw.partition(b"-")
    return int(seq), int(number)


def encode(event: RunEvent) -> str:
    """An event as JSON; its run_id is the key's."""
    return dump_json(
        {
            "seq": event.seq,
            "time": event.time,
            "type": event.type,
            "node": event.node,
            "attempt": event.attempt,
            "data": event.data,
        }
    )


def decode(run_id: str, fields: dict[bytes, bytes]) -> RunEvent | None:
    """The event of an entry; None for one that is not ours."""
    try:
        values = load_json(fields[FIELD].decode())
        return RunEvent.model_validate({"run_id": run_id, **values})
    except (KeyError, TypeError, ValueError):
        return None


def gapless(events: Iterable[RunEvent], after: int) -> list[RunEvent]:
    """The durable events that follow ``after`` without a gap."""
    found: list[RunEvent] = []
    for event in events:
        if event.type == TOKEN_EVENT or event.seq <= after:
            continue
        if event.seq != after + len(found) + 1:
            break
        found.append(event)
    return found


def state_after(events: Sequence[RunEvent]) -> dict[str, str]:
    """What durable events say of the run's state: fields of its hash."""
    state: dict[str, str] = {}
    for event in events:
        if event.type == TOKEN_EVENT:
            continue
        state["last_seq"] = str(event.seq)
        status = _STATUS_AFTER.get(event.type)
        if status is None:
            continue
        state["status"] = status
        state["waiting"] = dump_json(event.data.get("waiting")) if status == "waiting" else ""
        if status != "running":
            state["owner"] = ""
    return state


def is_end(events: Sequence[RunEvent]) -> bool:
    """Whether the run has ended with them."""
    durable = [event for event in events if event.type != TOKEN_EVENT]
    return bool(durable) and durable[-1].type in TERMINAL_EVENTS


def _quoted(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)


def entries(reply: Any) -> list[tuple[EntryId, dict[bytes, bytes]]]:
    """XRANGE's answer; entries that were deleted have no fields."""
    return [(position(raw), fields) for raw, fields in reply or () if fields]
