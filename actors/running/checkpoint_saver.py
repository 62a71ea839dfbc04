"""LangGraph's checkpointer over our stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)

from actors.running.checkpoint_codec import CheckpointCodec, config_of, read_metadata, strict_serializer
from actors.running.checkpoint_writer import CheckpointWriter
from actors.stores.records import CheckpointRow
from actors.stores.store import CheckpointStore
from registries.contracts.errors import ValidationError

_BEGINNINGS = frozenset({"input", "loop"})
_INPUT_TASK = ", __start__"
"""LangGraph spreads the input over the channels by a task of its own, in steps -1 and 0."""

_TRIGGERS = ("branch:to:", "join:", "__")
"""Channels by which LangGraph's nodes start, and its own: questions, errors, single tasks. Its names for them
are private: with others a run would commit once more, or a state that is followed too late
(tests/unit/actors/running/test_checkpoint_saver.py)."""


class CheckpointSaver(BaseCheckpointSaver[int]):
    """Reads from a store, writes through a CheckpointWriter; one instance belongs to one run.

    A checkpoint is one row with the whole state, so that a commit is one insert and a fork one copy; and no
    two branches of a thread can mix their channels up, which is why plain integers do as channel versions.
    Only the coroutines work: a blocking call would hold up the event loop. Errors: StoreError, and what the
    writer raises.
    """

    def __init__(self, store: CheckpointStore, writer: CheckpointWriter, is_new: bool = False) -> None:
        """``is_new``: the thread has no checkpoint yet, so that the first look for one costs no query."""
        serializer = strict_serializer()
        super().__init__(serde=serializer)
        self._codec = CheckpointCodec(serializer)
        self._store = store
        self._writer = writer
        self._is_new = is_new

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> CheckpointSaver:
        """Itself: a state holds JSON values, no type of its schema needs to be built."""
        return self

    # -- a running graph

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint; committed when this returns, unless it holds the graph's input or its end."""
        row = self._codec.checkpoint_row(config, checkpoint, metadata)
        if metadata.get("source") in _BEGINNINGS and metadata.get("step", 1) <= 0:
            # The accepted run has its input: lost with a crash, it is made again. Two commits less a run.
            self._writer.defer((row,))
        elif metadata.get("source") == "loop" and _nothing_follows(_set_channels(checkpoint)):
            await self._writer.hold((row,), ())
        else:
            await self._writer.keep((row,), ())
        return config_of(row.thread_id, row.ns, row.checkpoint_id)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write what one task made; committed when this returns, so that the task never runs again.

        Where nothing follows, the run's end is next: it has the same commit, and nobody waits here.
        """
        if task_path.endswith(_INPUT_TASK):
            # Run again from the input when it is lost; the checkpoint after it goes with the next commit.
            return
        rows = self._codec.write_rows(config, writes, task_id, task_path)
        if _nothing_follows(channel for channel, _ in writes):
            await self._writer.hold((), rows)
        else:
            await self._writer.keep((), rows)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that ``config`` names, or the newest one of its thread and namespace."""
        if self._is_new:
            self._is_new = False
            return None
        await self._writer.flush()
        place = config["configurable"]
        found = await self._store.checkpoint(
            str(place["thread_id"]), place.get("checkpoint_ns", ""), get_checkpoint_id(config)
        )
        return None if found is None else self._codec.read(*found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Newest first. ``filter`` is compared with the metadata here and never becomes SQL."""
        await self._writer.flush()
        place: Mapping[str, Any] = config["configurable"] if config else {}
        wanted = place.get("checkpoint_id")
        narrowed = bool(filter) or wanted is not None
        left = limit
        for row, writes in await self._store.checkpoints(
            str(place["thread_id"]) if place else None,
            place.get("checkpoint_ns"),
            get_checkpoint_id(before) if before else None,
            None if narrowed else limit,
        ):
            if wanted is not None and row.checkpoint_id != wanted:
                continue
            if filter and not _matches(row, filter):
                continue
            if left is not None:
                if left <= 0:
                    return
                left -= 1
            yield self._codec.read(row, writes)

    # -- whole threads

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove all states of a run."""
        await self._writer.flush()
        await self._store.drop_threads([thread_id])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints whose metadata name one of these runs; all are read to find them."""
        await self._writer.flush()
        wanted = set(run_ids)
        found: dict[str, list[str]] = {}
        for row, _ in await self._store.checkpoints(None) if wanted else []:
            if read_metadata(row).get("run_id") in wanted:
                found.setdefault(row.thread_id, []).append(row.checkpoint_id)
        for thread_id, checkpoint_ids in found.items():
            await self._store.drop_checkpoints(thread_id, checkpoint_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """All checkpoints and writes of one thread under another name as well, in one commit."""
        await self._writer.flush()
        found = await self._store.checkpoints(source_thread_id)
        if found:
            await self._store.keep(
                [replace(row, thread_id=target_thread_id) for row, _ in found],
                [replace(write, thread_id=target_thread_id) for _, writes in found for write in writes],
            )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the newest checkpoint of each namespace ("keep_latest") or nothing ("delete").

        Raises ValidationError (param strategy) for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValidationError(f"there is no strategy {strategy!r}: keep_latest or delete", "strategy")
        await self._writer.flush()
        if strategy == "delete":
            await self._store.drop_threads(list(thread_ids))
            return
        for thread_id in thread_ids:
            kept: set[str] = set()
            old = []
            for row, _ in await self._store.checkpoints(thread_id):
                if row.ns in kept:
                    old.append(row.checkpoint_id)
                kept.add(row.ns)
            if old:
                await self._store.drop_checkpoints(thread_id, old)

    # -- blocking calls

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Refused with NotImplementedError, like all blocking calls."""
        _refuse("aget_tuple")

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Refused."""
        _refuse("alist")

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Refused."""
        _refuse("aput")

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Refused."""
        _refuse("aput_writes")

    def delete_thread(self, thread_id: str) -> None:
        """Refused."""
        _refuse("adelete_thread")


def _nothing_follows(channels: Iterable[str]) -> bool:
    """Whether none of these channels lets a node begin, now or together with others."""
    return not any(channel.startswith(_TRIGGERS) for channel in channels)


def _set_channels(checkpoint: Checkpoint) -> Iterator[str]:
    """Those with a value; a join that nobody has reached since it was passed is there as an empty set."""
    return (channel for channel, value in checkpoint["channel_values"].items() if value != set())


def _matches(row: CheckpointRow, filter: Mapping[str, Any]) -> bool:
    metadata: Mapping[str, Any] = dict(read_metadata(row))
    return all(metadata.get(key) == value for key, value in filter.items())


def _refuse(coroutine: str) -> NoReturn:
    raise NotImplementedError(f"this checkpointer never blocks: use {coroutine} (ainvoke, astream, …)")
