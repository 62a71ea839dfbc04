"""The offline checker: what must be true of a database after any fault."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.stores.store import Store
from registries.contracts.runs import TERMINAL_EVENTS, TERMINAL_STATUSES, RunEvent

TENANT = "default"


async def problems_of(
    store: Store,
    acknowledged: Sequence[str],
    reference: Mapping[str, Any] | None = None,
    journal: Path | None = None,
) -> list[str]:
    """Every broken promise, in words; empty when all hold.

    ``reference`` is the result of the same request without a fault: answers, node ids, visits and texts,
    and tokens must be equal. ``journal`` is what the engines wrote of their model calls.
    """
    found: list[str] = []
    begun = begun_calls(journal) if journal is not None else {}
    for run_id in acknowledged:
        run = await store.get(run_id, TENANT)
        if run is None:
            found.append(f"{run_id}: acknowledged, and lost")
            continue
        if run["status"] not in TERMINAL_STATUSES:
            found.append(f"{run_id}: still {run['status']}")
            continue
        events = await store.events(run_id, TENANT)
        found += [f"{run_id}: {problem}" for problem in event_problems(events)]
        found += [f"{run_id}: {problem}" for problem in repeated_nodes(events, begun)]
        if reference is not None:
            found += [f"{run_id}: {problem}" for problem in result_problems(run["result"], reference)]
    return found


def event_problems(events: Sequence[RunEvent]) -> list[str]:
    """Faults of one run's log."""
    found = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append(f"seqs are not gapless: {[event.seq for event in events]}")
    life: list[RunEvent] = []
    for event in events:
        life = [] if event.type == "run.restarted" else [*life, event]
    terminal = [event.type for event in life if event.type in TERMINAL_EVENTS]
    if len(terminal) != 1 or not life or life[-1].type not in TERMINAL_EVENTS:
        found.append(f"terminal events of its last life: {terminal}, the last event is {events[-1].type}")
    ends = Counter(
        (event.node, event.data.get("visit")) for event in events if event.type == "node.completed"
    )
    found += [f"node {node} visit {visit} completed {n} times" for (node, visit), n in ends.items() if n > 1]
    return found


def repeated_nodes(events: Sequence[RunEvent], begun: Mapping[str, Sequence[float]]) -> list[str]:
    """Nodes whose model was called after the end that is committed: they had run, and ran again."""
    found = []
    for event in events:
        if event.type != "node.completed":
            continue
        call = f"{event.run_id}:{event.node}:{event.data['visit']}"
        late = [at - event.time for at in begun.get(call, ()) if at > event.time]
        found += [f"{call} was called {after_s:.3f} s after its committed end" for after_s in late]
    return found


def begun_calls(journal: Path) -> dict[str, list[float]]:
    """When each call began, in seconds since the epoch: once, and again after every kill under it."""
    begun: dict[str, list[float]] = {}
    for line in calls_in(journal):
        if line["what"] == "begin":
            begun.setdefault(line["call"], []).append(line["time"])
    return begun


def result_problems(result: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Where a result differs from the fault-free one."""
    found = []
    for name in ("status", "answer", "rounds", "usage"):
        if result[name] != reference[name]:
            found.append(f"{name} is {result[name]!r}, without a fault it is {reference[name]!r}")
    if shape(result) != shape(reference):
        found.append(f"nodes {shape(result)} instead of {shape(reference)}")
    return found


def shape(result: Mapping[str, Any]) -> list[tuple[str, int, str, str]]:
    """The nodes of a result without times and ids of calls; siblings in the order of their names."""
    return sorted((n["id"], n["visit"], n["status"], n["text"]) for n in result["nodes"])


def calls_in(journal: Path) -> list[dict[str, Any]]:
    """The lines of an engine's journal; a line cut off by a kill is left out."""
    if not journal.exists():
        return []
    lines = []
    for line in journal.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
