"""What the whole runtime does once in a while, by whichever runner's turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ParleyError

_LOOK_S = 30.0
_PAUSE_S = 0.05
"""Between two portions of a long pruning: runs want to commit too."""


class Housekeeping:
    """Prunes what the retention policy no longer keeps, and makes the scheduled backups."""

    def __init__(self, store: Store, config: RuntimeConfig, back_up: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._config = config
        self._back_up = back_up

    async def run(self) -> None:
        """Until cancelled; a failure is logged and tried again at the next turn."""
        pause_s = min(_LOOK_S, self._config.retention.every_s)
        while True:
            await asyncio.sleep(pause_s)
            # Each by itself: a pruning that fails is the very time to have a backup.
            await self._attempt(self.prune)
            await self._attempt(self._back_up)

    async def _attempt(self, job: Callable[[], Awaitable[None]]) -> None:
        log = structlog.get_logger("actors.running")
        try:
            await job()
        except ParleyError as error:
            log.warning("housekeeping_failed", error=error.message)
        except Exception:
            # Logged and gone on: one fault of ours must not be the end of all pruning and backups.
            log.exception("housekeeping_fault")

    async def prune(self) -> None:
        """One retention pass, when it is this process's turn."""
        policy = self._config.retention
        if not await self._store.turn("prune", policy.every_s):
            return
        runs = checkpoints = 0
        while True:
            removed = await self._store.prune(policy)
            if not removed.runs and not removed.checkpoints:
                break
            runs, checkpoints = runs + removed.runs, checkpoints + removed.checkpoints
            await asyncio.sleep(_PAUSE_S)
        if runs or checkpoints:
            structlog.get_logger("actors.running").info("pruned", runs=runs, checkpoints=checkpoints)
