"""Blocking transactions for one thread, over a connection outside the pool."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from actors.stores.database import Work
from actors.stores.postgres_connection import PostgresConnection, is_alive
from actors.stores.postgres_errors import our_error
from actors.stores.postgres_persistence import persist
from actors.stores.postgres_pool import PostgresPool
from actors.stores.postgres_transaction import WRITE, WorkFailed, transact
from actors.stores.store_faults import FaultLog
from registries.contracts.errors import StoreError

T = TypeVar("T")


class PostgresTransactor:
    """See actors.stores.database.Transactor; connects at its first use, and again after a fault."""

    def __init__(self, pool: PostgresPool, faults: FaultLog) -> None:
        self._pool = pool
        self._faults = faults
        self._connection: PostgresConnection | None = None
        self._closed = False

    def run(self, work: Work[T]) -> T:
        """See Transactor."""
        shown = self._pool.address.shown
        if self._closed:
            raise StoreError(f"the store {shown} is closed")
        try:
            return persist(lambda: transact(self._connected(), [work], WRITE), shown, self._faults)[0]
        except WorkFailed as failed:
            error = our_error(failed.cause, shown)
        raise error

    def close(self) -> None:
        """See Transactor."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is not None and is_alive(self._connection):
            return self._connection
        self._let_go()
        self._connection = self._pool.connect()
        return self._connection
