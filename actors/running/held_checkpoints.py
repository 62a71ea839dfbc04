"""A thread's checkpoints in memory, to put questions about them to a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    copy_checkpoint,
    get_checkpoint_id,
)

from actors.running.checkpoint_codec import config_of


class HeldCheckpoints(BaseCheckpointSaver[int]):
    """One namespace of one thread, newest first; what a graph writes stays here."""

    def __init__(self, held: Iterable[CheckpointTuple]) -> None:
        super().__init__()
        self.held = list(held)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> HeldCheckpoints:
        """Itself: nothing is deserialised here."""
        return self

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The named one, or the newest."""
        wanted = get_checkpoint_id(config)
        found = (each for each in self.held if wanted in (None, each.checkpoint["id"]))
        return next((_copied(each) for each in found), None)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """All of them."""
        for each in self.held:
            yield _copied(each)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Hold it as the newest."""
        place = config["configurable"]
        made = config_of(str(place["thread_id"]), place.get("checkpoint_ns", ""), checkpoint["id"])
        self.held.insert(0, CheckpointTuple(made, checkpoint, metadata, pending_writes=[]))
        return made

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Nothing: an update's writes are in its checkpoint, and beside the one before for history only."""


def _copied(held: CheckpointTuple) -> CheckpointTuple:
    """LangGraph changes what it is given."""
    return held._replace(checkpoint=copy_checkpoint(held.checkpoint))
