"""Whether the database server can take the connections that a runtime may open."""

from __future__ import annotations

from urllib.parse import urlsplit

from actors.stores.connection_share import TOOL_CONNECTIONS, ConnectionShare, require_room
from actors.stores.open_database import postgres_name, store_url
from registries.contracts.config import RuntimeConfig


async def check_connections(config: RuntimeConfig, nodes: int) -> None:
    """Ask once, before anything is started; nothing to ask for SQLite.

    Raises ValidationError (param pool_max) with the figures when ``nodes`` times ``pool_max`` do not fit,
    StoreError when the server cannot be asked.
    """
    url = store_url(config)
    if not urlsplit(url).scheme.startswith("postgres"):
        return
    from actors.stores.postgres_database import PostgresDatabase

    database = await PostgresDatabase.open(url, ConnectionShare(1, TOOL_CONNECTIONS), postgres_name(config))
    try:
        room = await database.room()
    finally:
        await database.close()
    require_room(room, config.pool_max, nodes)
