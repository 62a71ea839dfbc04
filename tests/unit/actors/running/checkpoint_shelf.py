"""A CheckpointStore in memory."""

from __future__ import annotations

from collections.abc import Sequence

from actors.stores.records import CheckpointRow, WriteRow

Stored = tuple[CheckpointRow, list[WriteRow]]


class CheckpointShelf:
    """``commits`` counts calls of ``keep``; ``error`` is raised by all of them while it is set."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], CheckpointRow] = {}
        self.writes: dict[tuple[str, str, str, str, int], WriteRow] = {}
        self.commits = 0
        self.error: Exception | None = None

    async def checkpoint(self, thread_id: str, ns: str, checkpoint_id: str | None = None) -> Stored | None:
        found = [
            stored
            for stored in await self.checkpoints(thread_id, ns)
            if checkpoint_id in (None, stored[0].checkpoint_id)
        ]
        return found[0] if found else None

    async def checkpoints(
        self,
        thread_id: str | None,
        ns: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[Stored]:
        rows = [
            row
            for row in self.rows.values()
            if thread_id in (None, row.thread_id)
            and ns in (None, row.ns)
            and (before is None or row.checkpoint_id < before)
        ]
        rows.sort(key=lambda row: row.checkpoint_id, reverse=True)
        return [(row, self._writes_of(row)) for row in rows[:limit]]

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        if self.error is not None:
            raise self.error
        self.commits += 1
        for row in checkpoints:
            self.rows[row.thread_id, row.ns, row.checkpoint_id] = row
        for write in writes:
            key = (write.thread_id, write.ns, write.checkpoint_id, write.task_id, write.idx)
            if write.idx < 0 or key not in self.writes:
                self.writes[key] = write

    async def drop_threads(self, thread_ids: Sequence[str]) -> None:
        self.rows = {key: row for key, row in self.rows.items() if key[0] not in thread_ids}
        self.writes = {key: row for key, row in self.writes.items() if key[0] not in thread_ids}

    async def drop_checkpoints(self, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
        def stays(key: Sequence[str | int]) -> bool:
            return key[0] != thread_id or key[2] not in checkpoint_ids

        self.rows = {key: row for key, row in self.rows.items() if stays(key)}
        self.writes = {key: row for key, row in self.writes.items() if stays(key)}

    def _writes_of(self, row: CheckpointRow) -> list[WriteRow]:
        place = (row.thread_id, row.ns, row.checkpoint_id)
        return [self.writes[key] for key in sorted(self.writes) if key[:3] == place]
