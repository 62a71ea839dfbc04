"""A PostgreSQL database as a backup reads it."""

from __future__ import annotations

from typing import TypeVar

import psycopg

from actors.stores.database import Transaction, Work
from actors.stores.postgres_connection import PostgresConnection, connection_options, prepare_connection
from actors.stores.postgres_errors import our_error
from actors.stores.postgres_transaction import READ, WorkFailed, transact
from actors.stores.postgres_url import PostgresAddress, parse_postgres_url
from registries.contracts.errors import NotFound

T = TypeVar("T")
IDLE_S = 600
"""Between two queries a page goes to a disk that may be slow; a read keeps no writer waiting meanwhile."""


class PostgresBackupSource:
    """See backup_source.BackupSource. A connection of its own: no pool, no schema made, none migrated."""

    backend = "postgresql"

    def __init__(self, url: str, name: str) -> None:
        """``name`` is shown in pg_stat_activity. Raises ValidationError for a wrong URL."""
        self._address = parse_postgres_url(url)
        self._options = connection_options(self._address, name)

    def read(self, work: Work[T]) -> T:
        """See BackupSource. Each single wait on the server ends, the whole read has no limit."""
        shown = self._address.shown

        def checked(tx: Transaction) -> T:
            _ensure_tables(tx, self._address)
            return work(tx)

        try:
            with PostgresConnection.connect(**self._options) as connection:
                prepare_connection(connection, self._address.schema)
                connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'".encode())
                answer: T = transact(connection, [checked], READ)[0]
                return answer
        except WorkFailed as failed:
            error = our_error(failed.cause, shown)
        except psycopg.Error as fault:
            error = our_error(fault, shown)
        raise error


def _ensure_tables(tx: Transaction, address: PostgresAddress) -> None:
    """A backup of nothing looks like a backup; a name that is misspelt in the URL must not make one."""
    where, check = f"the database {address.shown}", "check PARLEY_STORE_URL"
    if address.schema is not None:
        if tx.execute("SELECT to_regnamespace(?)", (f'"{address.schema}"',)).fetchone()[0] is None:
            raise NotFound(f"{where} has no schema {address.schema}; {check}")
        where = f"the schema {address.schema} of {where}"
    if None in tx.execute("SELECT to_regclass('migrations'), to_regclass('runs')").fetchone():
        raise NotFound(f"{where} has no tables of Parley; {check}")
