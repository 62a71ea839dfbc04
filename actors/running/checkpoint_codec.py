"""LangGraph's checkpoints as rows of a store and back; what comes back is data, whoever wrote the row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from actors.stores.records import CheckpointRow, WriteRow
from registries.contracts.errors import StoreError

_TYPES = frozenset({"msgpack", "null", "bytes", "bytearray"})
"""What we write. LangGraph would also read "json", whose constructor calls nobody here needs."""
_CHECKPOINT_KEYS = ("id", "channel_values", "channel_versions", "versions_seen")


def strict_serializer() -> JsonPlusSerializer:
    """LangGraph's serialiser without pickle, and with its own fixed list of types to build.

    That list (dates, sets, messages, LangGraph's Send and Interrupt, …) holds with and without
    LANGGRAPH_STRICT_MSGPACK; any other type that a row names is not imported, its plain data comes back.
    """
    return JsonPlusSerializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)


class CheckpointCodec:
    """Writes and reads rows. Reading raises StoreError, not retryable, for a row that is not ours."""

    def __init__(self, serializer: JsonPlusSerializer) -> None:
        self._serializer = serializer

    def checkpoint_row(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> CheckpointRow:
        """The whole state in one row; ``config`` names thread, namespace and the parent."""
        place = config["configurable"]
        type_, data = self._serializer.dumps_typed(checkpoint)
        kept = get_serializable_checkpoint_metadata(config, metadata)
        return CheckpointRow(
            thread_id=str(place["thread_id"]),
            ns=place.get("checkpoint_ns", ""),
            checkpoint_id=checkpoint["id"],
            parent_id=place.get("checkpoint_id"),
            type=type_,
            data=data,
            metadata=json.dumps(kept, separators=(",", ":")).encode(),
        )

    def write_rows(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> list[WriteRow]:
        """The writes of one task towards the checkpoint after ``config``'s."""
        place = config["configurable"]
        thread_id, ns = str(place["thread_id"]), place.get("checkpoint_ns", "")
        rows = []
        for number, (channel, value) in enumerate(writes):
            type_, data = self._serializer.dumps_typed(value)
            idx = WRITES_IDX_MAP.get(channel, number)
            rows.append(
                WriteRow(thread_id, ns, place["checkpoint_id"], task_id, idx, channel, type_, data, task_path)
            )
        return rows

    def read(self, row: CheckpointRow, writes: Sequence[WriteRow]) -> CheckpointTuple:
        """As LangGraph wants it, the writes in the order in which a running graph applies them."""
        ordered = sorted(writes, key=lambda write: writes_sort_key(write.task_path, write.task_id, write.idx))
        return CheckpointTuple(
            config=config_of(row.thread_id, row.ns, row.checkpoint_id),
            checkpoint=self.read_checkpoint(row),
            metadata=read_metadata(row),
            parent_config=config_of(row.thread_id, row.ns, row.parent_id) if row.parent_id else None,
            pending_writes=[
                (write.task_id, write.channel, self._load(write.type, write.data, write)) for write in ordered
            ],
        )

    def read_checkpoint(self, row: CheckpointRow) -> Checkpoint:
        """The state itself."""
        checkpoint = self._load(row.type, row.data, row)
        if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in _CHECKPOINT_KEYS):
            raise _unreadable(row, "it is not a checkpoint")
        return cast(Checkpoint, checkpoint)

    def _load(self, type_: str, data: bytes, row: CheckpointRow | WriteRow) -> Any:
        if type_ not in _TYPES:
            raise _unreadable(row, f"type {type_[:40]!r} is never written by this runtime")
        try:
            return self._serializer.loads_typed((type_, data))
        except Exception as error:
            raise _unreadable(row, f"its {type_} is damaged") from error


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    """How LangGraph names a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def read_metadata(row: CheckpointRow) -> CheckpointMetadata:
    """Who made the checkpoint and in which step; raises StoreError when it is no JSON object."""
    try:
        metadata = json.loads(row.metadata)
    except ValueError as error:
        raise _unreadable(row, "its metadata is no JSON") from error
    if not isinstance(metadata, dict):
        raise _unreadable(row, "its metadata is no JSON object")
    return cast(CheckpointMetadata, metadata)


def _unreadable(row: CheckpointRow | WriteRow, why: str) -> StoreError:
    place = {"thread_id": row.thread_id, "ns": row.ns, "checkpoint_id": row.checkpoint_id}
    error = StoreError(f"a checkpoint of run {row.thread_id} cannot be read: {why}", context=place)
    # The same bytes come back at every try.
    error.retryable = False
    return error
