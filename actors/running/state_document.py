"""A run's state as it is shown, and the checkpoints that it can be forked from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot

from actors.running.checkpoint_codec import CheckpointCodec, strict_serializer
from actors.running.held_checkpoints import HeldCheckpoints
from actors.stores.store import CheckpointStore
from flows.builder import FlowGraphs
from flows.state import AgentState
from registries.specs import FlowSpec

_START = "__start__"


async def state_document(
    store: CheckpointStore, graphs: FlowGraphs, flow: FlowSpec, run_id: str
) -> dict[str, Any]:
    """``state``, ``next`` and ``checkpoints`` (newest first) as JSON values.

    The state (None before the first checkpoint) is the newest checkpoint's, without stack traces. ``next``
    are the nodes still to end in the step under way; those of a checkpoint would run in a fork of it. Each
    checkpoint has checkpoint_id, parent_id, step, created_at (seconds since the epoch) and next. Raises
    StoreError.
    """
    codec = CheckpointCodec(strict_serializer())
    saved = [codec.read(row, writes) for row, writes in await store.checkpoints(run_id, "")]
    if not saved:
        return {"state": None, "next": [], "checkpoints": []}
    plan, graph = graphs.begun(flow)
    kept = graph.copy({"checkpointer": HeldCheckpoints(saved)})
    config: RunnableConfig = {"configurable": {"thread_id": run_id}}
    newest = await kept.aget_state(config)
    past = [snapshot async for snapshot in kept.aget_state_history(config)]
    return {
        "state": _shown(saved[0]),
        "next": _nodes(newest, plan.entries),
        "checkpoints": [
            _fact(checkpoint, snapshot, plan.entries)
            for checkpoint, snapshot in zip(saved, past, strict=True)
        ],
    }


def _shown(saved: CheckpointTuple) -> dict[str, Any]:
    values = saved.checkpoint["channel_values"]
    state = values.get(_START) or values
    shown = {name: state[name] for name in AgentState.__annotations__ if name in state}
    shown["error_history"] = [
        {name: fact for name, fact in error.items() if name != "stack_trace"}
        for error in shown.get("error_history", ())
    ]
    return shown


def _fact(saved: CheckpointTuple, snapshot: StateSnapshot, entries: Sequence[str]) -> dict[str, Any]:
    parent = saved.parent_config
    return {
        "checkpoint_id": saved.checkpoint["id"],
        "parent_id": parent["configurable"]["checkpoint_id"] if parent else None,
        "step": saved.metadata.get("step"),
        "created_at": datetime.fromisoformat(saved.checkpoint["ts"]).timestamp(),
        "next": _nodes(snapshot, entries),
    }


def _nodes(snapshot: StateSnapshot, entries: Sequence[str]) -> list[str]:
    """LangGraph's own first step only hands the input to the entries."""
    return list(entries) if _START in snapshot.next else list(snapshot.next)
