"""A PostgreSQL database made ready: its schema exists and is up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from actors.stores.migrations import migrate
from actors.stores.postgres_errors import our_error
from actors.stores.postgres_transaction import PostgresTransaction
from actors.stores.postgres_url import PostgresAddress
from actors.stores.schema import MIGRATIONS
from registries.contracts.errors import ValidationError


def prepare_database(address: PostgresAddress, options: Mapping[str, Any]) -> None:
    """Make the schema that the URL names where it is missing, and apply migrations. Blocking.

    Raises StoreError with the server's reason (no server, a key that it refuses) or for a schema that is
    newer, ValidationError for a database that cannot hold every text.
    """
    try:
        with psycopg.connect(**options) as connection:
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise ValidationError(
                    f"the database {address.shown} keeps texts as {encoding}; make one with ENCODING 'UTF8'",
                    param="store_url",
                )
            if address.schema:
                connection.execute("SELECT set_config('search_path', %s, false)", (f'"{address.schema}"',))
            if not _is_current(connection):
                with connection.transaction():
                    _bring_forward(connection, address.schema)
    except psycopg.Error as error:
        raise our_error(error, address.shown) from error


def _is_current(connection: psycopg.Connection[Any]) -> bool:
    """Without a lock: the usual case, in which many processes may start at once."""
    if connection.execute("SELECT to_regclass('migrations')").fetchone() == (None,):
        return False
    found = connection.execute("SELECT COALESCE(MAX(version), 0) FROM migrations").fetchone()
    return found == (max(MIGRATIONS["postgresql"]),)


def _bring_forward(connection: psycopg.Connection[Any], schema: str | None) -> None:
    # One process at a time: IF NOT EXISTS alone fails for one of two that find something missing.
    connection.execute("SET LOCAL lock_timeout = 0")
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('parley ' || %s, 0))", (schema or "",))
    if schema and connection.execute("SELECT to_regnamespace(%s)", (f'"{schema}"',)).fetchone() == (None,):
        connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
    migrate(PostgresTransaction(connection), MIGRATIONS["postgresql"])
