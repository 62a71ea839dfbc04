"""The world as a run's nodes see it, in the cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.gpu import GpuReport, read_gpus
from actors.stores.store import Store
from registries.contracts.generation import Message


class SystemClock:
    """flows.ports.Clock over the machine's clocks."""

    def monotonic(self) -> float:
        """Seconds, for intervals."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class GpuResources:
    """flows.ports.Resources: the GPUs of this machine against MAX_VRAM_USAGE_GB."""

    def __init__(self, limit_gb: float, read: Callable[[], GpuReport] = read_gpus) -> None:
        self._limit_gb = limit_gb
        self._read = read

    async def vram(self) -> Mapping[str, Any]:
        """Free GB on the emptiest device, or None without one."""
        report = await asyncio.to_thread(self._read)
        free = max((device.free_gb for device in report.devices), default=None)
        return {"available_gb": free, "limit_gb": self._limit_gb, "gpus": len(report.devices)}


class StoredHistory:
    """flows.ports.History over the runs' store, for one tenant."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def read(self, conversation_id: str, limit: int) -> list[Message]:
        """The conversation's last messages, newest last."""
        return await self._store.history(conversation_id, self._tenant, limit)
