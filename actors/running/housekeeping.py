"""What the whole runtime does once in a while, by whichever runner's turn it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import structlog

from actors.outputs import outputs_root, prune_outputs
from actors.stores.records import Pruned
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ParleyError

_LOOK_S = 30.0
_DAY_S = 86_400.0
_PAUSE_S = 0.05
"""Between two portions of a long pruning: runs want to commit too."""


class Housekeeping:
    """Prunes what retention no longer keeps, in the store and in ``outputs/``; makes scheduled backups."""

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
        total = Pruned()
        while removed := await self._store.prune(policy):
            total += removed
            await asyncio.sleep(_PAUSE_S)
        files = 0
        if policy.runs_days:
            root, age_s = outputs_root(self._config), policy.runs_days * _DAY_S
            files = await asyncio.to_thread(prune_outputs, root, age_s, time.time())
        if total or files:
            structlog.get_logger("actors.running").info("pruned", **asdict(total), files=files)
