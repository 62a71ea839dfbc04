"""How a run went out: as the event that tells it, and as the RunResult in that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.stores.store import RunStore
from registries.contracts.runs import RunEvent, RunResult, Waiting


async def settled_event(store: RunStore, row: Mapping[str, Any], tenant: str) -> RunEvent:
    """The event that a settled run's row stands for (see Store.get); raises StoreError."""
    if row["result"] is None:
        # It waits for a human: what it had by then is in the event that says so, and in no column.
        asked = await store.events(row["run_id"], tenant, after=row["last_seq"] - 1)
        if asked and asked[-1].type == "run.waiting":
            return asked[-1]
    result = row["result"] or _waiting(row).model_dump(mode="json")
    return RunEvent.model_validate(
        {
            "run_id": row["run_id"],
            "seq": row["last_seq"],
            "time": row["finished_at"] or row["started_at"] or row["created_at"],
            "type": f"run.{row['status']}",
            "data": {"result": result},
        }
    )


def _waiting(row: Mapping[str, Any]) -> RunResult:
    return RunResult(
        run_id=row["run_id"],
        flow=row["flow"],
        flow_version=row["flow_version"],
        status="waiting",
        request_id=row["request_id"],
        waiting=Waiting.model_validate(row["waiting"]),
    )
