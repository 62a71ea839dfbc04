"""One run's checkpoints for one attempt: read once, and given up at the first fault."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

_ERROR = "__error__"
"""LangGraph's channel for what ended a task; its constant is private."""


class RunThread(BaseCheckpointSaver[Any]):
    """The saver as one attempt of one run sees it.

    LangGraph reads the newest checkpoint when a graph starts. Whether the run is resumed must be known before
    that, so it is read in ``open`` and handed over then: one read an attempt. A write that fails is kept in
    ``error``: LangGraph tells of a failed task write only at its end, and not at all when it waits.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], saved: CheckpointTuple | None) -> None:
        super().__init__(serde=saver.serde)
        self.saved = saved
        self.error: Exception | None = None
        self._saver = saver
        self._handed_over = False

    @classmethod
    async def open(cls, saver: BaseCheckpointSaver[Any], run_id: str) -> RunThread:
        """Read the newest checkpoint of the run; raises what the saver raises."""
        return cls(
            saver, await saver.aget_tuple({"configurable": {"thread_id": run_id, "checkpoint_ns": ""}})
        )

    @property
    def config_specs(self) -> list[Any]:
        """The saver's."""
        return list(self._saver.config_specs)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The saver's."""
        return self._saver.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> RunThread:
        """Itself: a state holds JSON values, so no type needs to be allowed."""
        return self

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """What ``open`` has read, the first time."""
        if self._handed_over:
            return await self._saver.aget_tuple(config)
        self._handed_over = True
        return self.saved

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The saver's."""
        return self._saver.alist(config, filter=filter, before=before, limit=limit)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write; after a fault nothing is written any more."""
        self._check()
        try:
            return await self._saver.aput(config, checkpoint, metadata, new_versions)
        except Exception as error:
            self.error = error
            raise

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write what a task made. Of one that failed only its error is kept.

        A task cut off between its update and its route would else count as finished, with nothing to follow;
        and a rejected answer would be given again to whoever restarts the run.
        """
        self._check()
        failure = [write for write in writes if write[0] == _ERROR]
        try:
            await self._saver.aput_writes(config, failure or writes, task_id, task_path)
        except Exception as error:
            self.error = error
            raise

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


# LangGraph looks at it once a run, and finding a signature costs as much as a node's whole update.
RunThread.aput_writes.__signature__ = inspect.signature(RunThread.aput_writes)  # type: ignore[attr-defined]
