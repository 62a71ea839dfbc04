"""How a run went out: as the event that tells it, and as the RunResult in that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registries.contracts.runs import RunEvent, RunResult, Waiting


def settled_event(row: Mapping[str, Any]) -> RunEvent:
    """The event that a settled run's row stands for (see Store.get)."""
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
