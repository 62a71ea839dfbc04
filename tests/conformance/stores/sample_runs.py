"""Runs, events and results to put into a store, and the shortest ways through a run's life."""

from __future__ import annotations

from typing import Any

from actors.stores.records import CheckpointRow, ClaimedRun, IdempotencyKey, Lease, NewRun, RunWrite, WriteRow
from actors.stores.store import Store
from registries.contracts.generation import Attempt, Usage
from registries.contracts.runs import (
    ErrorFact,
    NodeResult,
    RunEvent,
    RunOrder,
    RunRequest,
    RunResult,
    RunStatus,
    Waiting,
)

LONG_S = 600.0
WAITING = Waiting(node="approve", interrupt_id="i1", text="85", question="Is it right?")
SPEC = {"name": "challenge", "nodes": [{"id": "creator", "kind": "generate"}]}


def new_run(run_id: str, version: str = "v1", **changes: Any) -> NewRun:
    """``changes`` go to where they belong: NewRun, RunOrder or RunRequest."""
    request: dict[str, Any] = {
        "prompt": "What is 48 + 37? – “quoted”",
        "flow_type": "challenge",
        "metadata": {"k": "ä"},
    }
    order: dict[str, Any] = {"deadline_s": 300.0, "tenant": "default", "user": "u"}
    run: dict[str, Any] = {"flow_version": version, "flow_spec": SPEC}
    for name, value in changes.items():
        if name in ("key", "parent", "checkpoints", "flow_spec"):
            run[name] = value
        elif name in ("deadline_s", "tenant", "user", "traceparent"):
            order[name] = value
        else:
            request[name] = value
    asked = RunRequest(**request)
    return NewRun(order=RunOrder(run_id=run_id, request_id=f"req-{run_id}", request=asked, **order), **run)


def key(name: str = "k", digest: str = "d") -> IdempotencyKey:
    return IdempotencyKey(name, digest)


def event(run_id: str, seq: int, type: Any = "node.completed", node: str | None = "creator") -> RunEvent:
    data: dict[str, Any] = {"text": "85", "n": [1, None]}
    if type in ("node.completed", "node.failed", "node.skipped"):
        data = node_result(str(node)).model_dump(mode="json")
    return RunEvent(run_id=run_id, seq=seq, time=1.5, type=type, node=node, data=data)


def node_result(id: str, **changes: Any) -> NodeResult:
    values: dict[str, Any] = {
        "id": id,
        "role": id,
        "status": "completed",
        "text": "85",
        "model_resolved": "tiny-model",
        "usage": Usage(prompt_tokens=10, completion_tokens=5, cost_micro_usd=7),
        "attempts": (Attempt(model="tiny-model", provider="local", outcome="ok"),),
    }
    return NodeResult(**{**values, **changes})


def result(run_id: str, status: RunStatus = "completed", **changes: Any) -> RunResult:
    values: dict[str, Any] = {"answer": "85", "nodes": (node_result("creator"),)}
    if status == "failed":
        values["error"] = ErrorFact(code="provider_error", message="the model is away")
    return RunResult(
        run_id=run_id, flow="challenge", flow_version="v1", status=status, **{**values, **changes}
    )


def write(lease: Lease, first: int, *types: Any) -> RunWrite:
    """Events of these types, numbered from ``first``."""
    return RunWrite(tuple(event(lease.run_id, first + number, type) for number, type in enumerate(types)))


def checkpoint(run_id: str, checkpoint_id: str = "c1", data: bytes = b"state") -> CheckpointRow:
    return CheckpointRow(run_id, "", checkpoint_id, None, "msgpack", data, b"{}")


def task_write(run_id: str, checkpoint_id: str = "c1") -> WriteRow:
    return WriteRow(run_id, "", checkpoint_id, "task", 0, "results", "msgpack", b"value")


async def take(
    store: Store, run_id: str = "r1", ttl_s: float = LONG_S, owner: str = "one", **changes: Any
) -> ClaimedRun:
    """A new run, accepted and held."""
    claimed = await store.claim(new_run(run_id, **changes), owner, ttl_s, 3)
    assert claimed is not None
    return claimed


async def end(
    store: Store, claimed: ClaimedRun, status: RunStatus = "completed", seq: int | None = None
) -> None:
    """The run's end, right after its claim or with this ``seq``."""
    first = claimed.last_seq + 1 if seq is None else seq
    ended = write(claimed.lease, first, f"run.{status}")
    await store.finish(claimed.lease, result(claimed.lease.run_id, status), ended)


async def types_of(store: Store, run_id: str, tenant: str = "default") -> list[str]:
    """The types of a run's events; fails where their seqs have a gap."""
    events = await store.events(run_id, tenant)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    return [e.type for e in events]


async def status_of(store: Store, run_id: str, tenant: str = "default") -> str:
    run = await store.get(run_id, tenant)
    assert run is not None
    return str(run["status"])
