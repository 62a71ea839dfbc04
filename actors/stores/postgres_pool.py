"""A process's connections to PostgreSQL: lent, checked, replaced; an outage is known at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from actors.stores.connection_share import ConnectionShare
from actors.stores.postgres_connection import (
    PostgresConnection,
    connection_options,
    is_alive,
    prepare_connection,
)
from actors.stores.postgres_errors import RETRY_AFTER_S, our_error
from actors.stores.postgres_preparation import prepare_database
from actors.stores.postgres_url import PostgresAddress
from registries.contracts.errors import StoreError

BORROW_TIMEOUT_S = 1.0
"""A connection to a living server takes milliseconds; there is one for every thread that asks."""
_TRY_S = 0.2
"""A pool tries to connect when somebody begins to wait: asking again is what finds a server that is back."""
_PROBES = 5
_HOLD_S = 0.5
"""After a failure everybody who waits fails at once for so long, instead of each after its own timeout."""


class PostgresPool:
    """psycopg's pool, which hides why it has no connection, with the reason and without the queue."""

    def __init__(self, address: PostgresAddress, share: ConnectionShare, name: str) -> None:
        """Raises ValidationError for a URL that libpq does not take, StoreError as prepare_database does."""
        self.address = address
        self._options = connection_options(address, name)
        self._held_until = 0.0
        prepare_database(address, self._options)
        self._pool: ConnectionPool[PostgresConnection] = ConnectionPool(
            connection_class=PostgresConnection,
            kwargs=self._options,
            configure=self._prepare,
            min_size=share.minimum,
            max_size=share.maximum,
            reconnect_timeout=_TRY_S,
            num_workers=1,
            open=True,
        )
        try:
            with self.connection() as connection:
                self.round_trip_s = min(_round_trip_s(connection) for _ in range(_PROBES))
        except BaseException:
            self._pool.close()
            raise

    @contextmanager
    def connection(self) -> Iterator[PostgresConnection]:
        """A living connection, given back afterwards; StoreError within about a second when there is none."""
        connection = self._borrow()
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def connect(self) -> PostgresConnection:
        """A connection of one's own, outside the pool; raises psycopg.Error."""
        connection = PostgresConnection.connect(**self._options)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_unbounded(self) -> psycopg.Connection[Any]:
        """A connection of one's own whose statements may take any time; raises psycopg.Error."""
        connection = psycopg.connect(**self._options)
        prepare_connection(connection, self.address.schema)
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {name} = 0".encode())
        return connection

    def ask(self) -> None:
        """Whether the server answers a new connection; raises StoreError. Blocking."""
        try:
            self.connect().close()
        except psycopg.Error as error:
            raise our_error(error, self.address.shown) from error
        self._held_until = 0.0

    def hold(self) -> StoreError:
        """From now on, for a moment, nobody waits; what they are told."""
        self._held_until = time.monotonic() + _HOLD_S
        return self._away()

    def admit(self) -> None:
        """Raise StoreError while the server is known to be away."""
        if time.monotonic() < self._held_until:
            raise self._away()

    def close(self) -> None:
        """Close every connection that is not lent; idempotent. Blocking."""
        self._pool.close()

    def _borrow(self) -> PostgresConnection:
        self.admit()
        deadline = time.monotonic() + BORROW_TIMEOUT_S
        is_last = False
        while not is_last:
            # One try begins after the deadline: a process that stood still until then has not looked yet.
            is_last = time.monotonic() >= deadline
            try:
                connection = self._pool.getconn(timeout=_TRY_S)
            except PoolClosed:
                raise StoreError(f"the store {self.address.shown} is closed") from None
            except PoolTimeout:
                continue
            if is_alive(connection):
                self._held_until = 0.0
                return connection
            connection.close()
            self._pool.putconn(connection)
        raise self.hold()

    def _prepare(self, connection: PostgresConnection) -> None:
        prepare_connection(connection, self.address.schema)

    def _away(self) -> StoreError:
        return StoreError(f"the database {self.address.shown} does not answer", retry_after_s=RETRY_AFTER_S)


def _round_trip_s(connection: psycopg.Connection[Any]) -> float:
    started = time.perf_counter()
    connection.execute(b"SELECT 1")
    return time.perf_counter() - started
