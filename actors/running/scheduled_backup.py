"""Backups on a schedule, by whichever runner's turn it is."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import structlog

from actors.stores.backup import write_backup
from actors.stores.backup_source import backup_source
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import StoreError

_JOB = "backup"
AGAIN_S = 3600.0
"""So long after a runner began a backup another one makes it, should the first have died over it."""
_NAME = re.compile(r"parley-\d{8}T\d{6}Z\.backup")
_PART = re.compile(r"\.parley-\d{8}T\d{6}Z\.backup\.part")


class ScheduledBackup:
    """Writes ``<home>/<backup.folder>/parley-<UTC time>.backup`` and keeps the newest ``backup.keep``."""

    def __init__(self, store: Store, config: RuntimeConfig, again_s: float = AGAIN_S) -> None:
        self._store = store
        self._config = config
        self._again_s = again_s
        self._owed = False

    async def back_up(self) -> None:
        """Write one when it is due and this process's turn.

        A failed one is owed by this process and tried again at its next call; one that a process died over is
        made by another after ``again_s``. Raises as write_backup does.
        """
        plan = self._config.backup
        if plan.every_h <= 0:
            return
        if not self._owed and not await self._store.turn(_JOB, plan.every_h * 3600, self._again_s):
            return
        self._owed = True
        folder = Path(self._config.home) / plan.folder
        path = folder / f"parley-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup"
        await asyncio.to_thread(_make_room, folder)
        # A connection of its own: a long read holds up nobody else's.
        manifest = await asyncio.to_thread(write_backup, backup_source(self._config), path)
        # From here on there is one, whatever fails: to owe it still would make another one at each call.
        self._owed = False
        try:
            await self._store.turn(_JOB, 0.0)
        finally:
            removed = await asyncio.to_thread(remove_old_backups, folder, plan.keep)
        runs = sum(part.rows for part in manifest.parts if part.table == "runs")
        structlog.get_logger("actors.running").info(
            "backup_written", file=str(path), runs=runs, removed=len(removed)
        )


def remove_old_backups(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` backups of the schedule; files by other names stay. Returns them.

    Raises StoreError.
    """
    found = sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    try:
        for path in found[keep:]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"old backups in {folder} cannot be removed: {error.strerror}") from error
    return found[keep:]


def _make_room(folder: Path) -> None:
    """The folder, without what a backup left behind that was killed; raises StoreError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"backups cannot be written to {folder}: {error.strerror}") from error
