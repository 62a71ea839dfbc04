"""Checkpoints as files: what a saver holds of one run, with all that is needed to go on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Interrupt

FOLDER = Path(__file__).parent
THREAD: Any = {"configurable": {"thread_id": "run-1", "checkpoint_ns": ""}}


def freeze(saved: CheckpointTuple) -> dict[str, Any]:
    """The checkpoint as JSON; LangGraph's own sets and questions are marked as such."""
    return {
        "checkpoint": _plain(saved.checkpoint),
        "metadata": _plain(saved.metadata),
        "pending_writes": _plain(saved.pending_writes or []),
    }


async def thaw(frozen: dict[str, Any]) -> InMemorySaver:
    """A saver that holds what was frozen."""
    saver = InMemorySaver()
    checkpoint = _made(frozen["checkpoint"])
    config = await saver.aput(THREAD, checkpoint, frozen["metadata"], checkpoint["channel_versions"])
    for task in dict.fromkeys(task for task, _, _ in frozen["pending_writes"]):
        writes = [(channel, _made(value)) for of, channel, value in frozen["pending_writes"] if of == task]
        await saver.aput_writes(config, writes, task)
    return saver


def read(path: Path) -> dict[str, Any]:
    """A frozen run; integers above 2**53 do not occur, so JSON keeps every value."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"__set__": sorted(value)}
    if isinstance(value, Interrupt):
        return {"__question__": value.value, "id": value.id}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no value of a state")


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "__set__" in value:
        return set(value["__set__"])
    if "__question__" in value:
        return Interrupt(value=value["__question__"], id=value["id"])
    return {key: _made(item) for key, item in value.items()}
