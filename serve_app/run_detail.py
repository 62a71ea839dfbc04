"""A run in full: its row, what its events tell, and the states it can be forked from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from actors.stores.store import RunStore
from actors.stores.told_nodes import told_nodes
from registries.contracts.errors import NotFound
from registries.contracts.generation import Usage
from registries.contracts.runs import NODE_ENDS, RunEvent, RunResult

PAGE = 500
_FROM_RESULT = {
    "answer",
    "nodes",
    "usage",
    "timings",
    "improvement",
    "artifact",
    "error",
    "rounds",
    "notices",
}


async def stored_run(store: RunStore, run_id: str, tenant: str) -> dict[str, Any]:
    """The run's row (see Store.get). Raises NotFound, StoreError."""
    row = await store.get(run_id, tenant)
    if row is None:
        raise NotFound(f"unknown run {run_id!r}", param="run_id")
    return row


async def all_events(store: RunStore, run_id: str, tenant: str) -> list[RunEvent]:
    """Every durable event of the run."""
    found: list[RunEvent] = []
    while True:
        page = await store.events(run_id, tenant, found[-1].seq if found else 0, PAGE)
        found += page
        if len(page) < PAGE:
            return found


def run_detail(row: Mapping[str, Any], events: Sequence[RunEvent], with_log: bool) -> dict[str, Any]:
    """The detail as JSON values: by the result where the run ended, else by what was committed so far."""
    stood = _last_result(row, events)
    result = stood or _result_so_far(row, events)
    facts = result.model_dump(mode="json", include=_FROM_RESULT)
    if stood is None:
        facts["timings"] = None  # known when an attempt has ended; zeros would be read as a measurement
        # One that this version cannot read is shown as another one wrote it.
        facts |= {name: value for name, value in (row["result"] or {}).items() if name in _FROM_RESULT}
    detail = {**row, **facts, "cost_usd": result.usage.cost}
    if with_log:
        detail["execution_log"] = [event.model_dump(mode="json") for event in events]
    return detail


def _last_result(row: Mapping[str, Any], events: Sequence[RunEvent]) -> RunResult | None:
    """How the run ended, or what it had when it asked its question; None while it is under way."""
    asked = [event for event in events if event.type == "run.waiting"] if row["status"] == "waiting" else []
    try:
        if row["result"] is not None:
            return RunResult.model_validate(row["result"])
        return RunResult.model_validate(asked[-1].data["result"]) if asked else None
    except (KeyError, pydantic.ValidationError):
        # Written by another version of the runtime; the log has it as it is.
        return None


def _result_so_far(row: Mapping[str, Any], events: Sequence[RunEvent]) -> RunResult:
    found = told_nodes(event.data for event in events if event.type in NODE_ENDS)
    return RunResult(
        run_id=row["run_id"],
        flow=row["flow"],
        flow_version=row["flow_version"],
        status=row["status"],
        nodes=found,
        usage=sum((node.usage for node in found), Usage()),
        rounds=max(
            (event.data.get("round", 0) for event in events if event.type == "round.started"), default=0
        ),
    )
