"""Which backend a store URL means: the one table of stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from actors.stores.sqlite_store import SQLiteStore
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

Opener = Callable[[str], Awaitable[Store]]


async def _open_sqlite(url: str) -> Store:
    path = unquote(urlsplit(url).path)
    return await SQLiteStore.open(Path(path))


OPENERS: dict[str, Opener] = {"sqlite": _open_sqlite}
"""URL scheme → opener. The conformance suite runs on every entry."""


def store_url(config: RuntimeConfig) -> str:
    """The configured URL, else the embedded SQLite file in PARLEY_HOME."""
    return config.store_url or f"sqlite://{Path(config.home).resolve() / 'parley.db'}"


async def open_store(config: RuntimeConfig) -> Store:
    """Open the runtime's store, its schema brought up to date.

    Raises ValidationError for a scheme that no backend has, StoreError when the database cannot be opened.
    """
    url = store_url(config)
    scheme = urlsplit(url).scheme
    if scheme not in OPENERS:
        known = ", ".join(sorted(OPENERS))
        raise ValidationError(f"store_url has the scheme {scheme!r}; allowed: {known}", param="store_url")
    return await OPENERS[scheme](url)
