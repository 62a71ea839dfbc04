"""Which database a store URL means: the one table of backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from actors.stores.connection_share import Role, connection_share
from actors.stores.database import Database
from actors.stores.sqlite_connection import SqliteFile
from actors.stores.sqlite_database import SqliteDatabase
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

Opener = Callable[[str, RuntimeConfig, Role], Awaitable[Database]]


async def _open_sqlite(url: str, config: RuntimeConfig, role: Role) -> Database:
    return await SqliteDatabase.open(parse_sqlite_url(url))


async def _open_postgres(url: str, config: RuntimeConfig, role: Role) -> Database:
    try:
        # Imported here: it needs an extra that an embedded installation does not have.
        from actors.stores.postgres_database import PostgresDatabase
    except ModuleNotFoundError as error:
        raise missing_driver(error) from None
    share = connection_share(config, role)
    return await PostgresDatabase.open(url, share, postgres_name(config))


def missing_driver(error: ModuleNotFoundError) -> ValidationError:
    """What an installation without PostgreSQL's extra is told."""
    return ValidationError(
        f"PostgreSQL needs the package {error.name}: pip install 'parley-runtime[postgres]'",
        param="store_url",
    )


def postgres_name(config: RuntimeConfig) -> str:
    """What this runtime's connections are called in pg_stat_activity; all others are somebody else's."""
    return f"parley-{config.instance}"


def parse_sqlite_url(url: str) -> SqliteFile:
    """``sqlite:///path[?max_page_count=N]``; the file grows to N pages of 4096 bytes at most.

    Raises ValidationError for any other parameter and for a number that is none.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    pages = options.pop("max_page_count", None)
    if options:
        raise ValidationError(
            f"store_url: sqlite takes max_page_count, not {', '.join(sorted(options))}", param="store_url"
        )
    if pages is not None and not (pages[-1].isascii() and pages[-1].isdigit() and int(pages[-1]) > 0):
        raise ValidationError("store_url: max_page_count must be a whole number from 1", param="store_url")
    return SqliteFile(Path(unquote(parts.path)), int(pages[-1]) if pages is not None else None)


OPENERS: dict[str, Opener] = {
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
}
"""URL scheme → opener. The conformance suite runs on every entry."""


def store_url(config: RuntimeConfig) -> str:
    """The configured URL, else the embedded SQLite file in PARLEY_HOME."""
    return config.store_url or f"sqlite://{quote(str(Path(config.home).resolve() / 'parley.db'))}"


async def open_database(config: RuntimeConfig, role: Role = "tool") -> Database:
    """The configured database, its schema brought up to date. ``role``: which process of a node this is.

    Raises ValidationError for a scheme that no backend has, StoreError when the database cannot be opened.
    """
    url = store_url(config)
    scheme = urlsplit(url).scheme
    if scheme not in OPENERS:
        known = ", ".join(sorted(OPENERS))
        raise ValidationError(f"store_url has the scheme {scheme!r}; allowed: {known}", param="store_url")
    return await OPENERS[scheme](url, config, role)
