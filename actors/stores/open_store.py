"""The runtime's store, from its configuration."""

from __future__ import annotations

from collections.abc import Callable

from actors.stores.connection_share import Role
from actors.stores.open_database import OPENERS, open_database, store_url
from actors.stores.open_hot_tier import with_hot_tier
from actors.stores.sql_store import SqlStore
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunResult

__all__ = ["OPENERS", "open_store", "store_url"]


async def open_store(
    config: RuntimeConfig, role: Role = "tool", on_ended: Callable[[RunResult], None] = lambda result: None
) -> Store:
    """Open the runtime's store, its schema brought up to date. ``role``: which process of a node this is;
    ``on_ended``: see SqlStore.

    With ``config.redis_url`` active runs are mirrored to Redis; see live_events.live_events for its readers.

    Raises ValidationError for a scheme that no backend has, StoreError when the database cannot be opened.
    """
    return await with_hot_tier(SqlStore(await open_database(config, role), on_ended), config)
