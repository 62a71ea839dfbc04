"""A database as a backup reads it: as it is. Nothing is made in it, nothing brought forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from actors.stores.database import Work
from actors.stores.open_database import missing_driver, parse_sqlite_url, postgres_name, store_url
from actors.stores.sqlite_backup_source import SqliteBackupSource
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

T = TypeVar("T")


class BackupSource(Protocol):
    """Opened for one read, and closed after it; ``backend`` as Database has it."""

    backend: str

    def read(self, work: Work[T]) -> T:
        """One snapshot, read only, for as long as the work takes. Blocking.

        Raises NotFound where there is no database, schema or table of ours, StoreError when it cannot be
        read; errors of our own tree that the work raises pass through.
        """
        ...


def _sqlite(url: str, config: RuntimeConfig) -> BackupSource:
    return SqliteBackupSource(parse_sqlite_url(url))


def _postgres(url: str, config: RuntimeConfig) -> BackupSource:
    try:
        # Imported here: it needs an extra that an embedded installation does not have.
        from actors.stores.postgres_backup_source import PostgresBackupSource
    except ModuleNotFoundError as error:
        raise missing_driver(error) from None
    return PostgresBackupSource(url, postgres_name(config))


SOURCES: dict[str, Callable[[str, RuntimeConfig], BackupSource]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
}
"""URL scheme → source; the schemes of open_database.OPENERS."""


def backup_source(config: RuntimeConfig) -> BackupSource:
    """The configured database, connected to when it is read. Raises ValidationError as open_database does."""
    url = store_url(config)
    scheme = urlsplit(url).scheme
    if scheme not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise ValidationError(f"store_url has the scheme {scheme!r}; allowed: {known}", param="store_url")
    return SOURCES[scheme](url, config)
