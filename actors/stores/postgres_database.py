"""Transactions on PostgreSQL, off the event loop."""

from __future__ import annotations

import asyncio
import copy
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import psycopg

from actors.stores.connection_share import ConnectionShare, ServerRoom
from actors.stores.database import Transaction, Work
from actors.stores.outage_watch import OutageWatch
from actors.stores.postgres_batch import PostgresBatch
from actors.stores.postgres_connection import PostgresConnection
from actors.stores.postgres_errors import RETRY_AFTER_S, client_error, our_error
from actors.stores.postgres_persistence import persist
from actors.stores.postgres_pool import PostgresPool
from actors.stores.postgres_transaction import READ, WRITE, WorkFailed, transact
from actors.stores.postgres_transactor import PostgresTransactor
from actors.stores.postgres_url import parse_postgres_url
from actors.stores.store_faults import UNREACHABLE, FaultLog, store_fault
from actors.stores.write_lane import WriteLane
from registries.contracts.errors import StoreError

T = TypeVar("T")


class PostgresDatabase:
    """Writes go through lanes, each a thread with one transaction at a time; reads beside them.

    A run's writes (``key``) always take the same lane, so they stay in order and never wait for each other's
    locks. There is a thread for every connection of the pool and none more (see ConnectionShare.lanes).
    """

    backend = "postgresql"

    def __init__(self, pool: PostgresPool, share: ConnectionShare) -> None:
        """See ``open``."""
        lanes = share.lanes(pool.round_trip_s)
        self._pool = pool
        self._faults = FaultLog()
        self._lanes = [WriteLane(self._commit, f"postgres-writer-{number}") for number in range(lanes)]
        self._readers = ThreadPoolExecutor(share.maximum - lanes, thread_name_prefix="postgres-reader")
        self._reads: set[asyncio.Future[Any]] = set()
        self._watch = OutageWatch(self._ask, self._refuse_waiting)
        self._closed = False

    @classmethod
    async def open(cls, url: str, share: ConnectionShare, name: str = "parley") -> PostgresDatabase:
        """Connect; a schema that the URL names (``?schema=``) is made where it is missing.

        Raises ValidationError for a wrong URL, StoreError (with the server's reason) when it cannot be used.
        """
        address = parse_postgres_url(url)
        return cls(await asyncio.to_thread(PostgresPool, address, share, name), share)

    async def write(self, work: Work[T], key: str = "") -> T:
        """See Database; StoreError about two seconds after the server has gone, and at once from then on.

        A write that was under way when the server froze is waited for: only so is its outcome known.
        """
        self._admit()
        return await self._watch.over(self._lane(key).write(work, key))

    async def read(self, work: Work[T]) -> T:
        """One snapshot, read only; tried once more when the connection is lost in the middle."""
        self._admit()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        reading = loop.run_in_executor(self._readers, self._read, work)
        reading.add_done_callback(lambda done: _hand_over(done, answer))
        self._reads.add(answer)
        try:
            return await self._watch.over(answer)
        finally:
            self._reads.discard(answer)

    def open_transactor(self) -> PostgresTransactor:
        """It connects at its first use."""
        return PostgresTransactor(self._pool, self._faults)

    def load(self, work: Work[T]) -> T:
        """See Database."""
        try:
            with self._pool.connect_unbounded() as connection:
                answer: T = transact(connection, [work])[0]
                return answer
        except WorkFailed as failed:
            cause = failed.cause
        except psycopg.Error as error:
            cause = error
        raise our_error(cause, self._pool.address.shown)

    async def details(self) -> dict[str, Any]:
        """See Database."""
        return {"address": self._pool.address.shown, **await self.read(_details)}

    async def room(self) -> ServerRoom:
        """What the server has room for; connections of our own name are not ``held``."""
        return await self.read(_room)

    async def close(self) -> None:
        """See Database."""
        if self._closed:
            return
        self._closed = True
        await self._watch.close()
        for lane in self._lanes:
            await lane.close()
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._pool.close)

    def _lane(self, key: str) -> WriteLane:
        first, *others = self._lanes
        return others[zlib.crc32(key.encode()) % len(others)] if key and others else first

    def _refuse_waiting(self) -> None:
        """Reads may be given up at any time; of the writes those that have not begun."""
        error = self._away(self._pool.hold())
        for lane in self._lanes:
            lane.refuse_waiting(copy.copy(error))
        for answer in self._reads:
            if not answer.done():
                answer.set_exception(copy.copy(error))

    def _admit(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        try:
            self._pool.admit()
        except StoreError as error:
            raise self._away(error) from error

    def _ask(self) -> None:
        try:
            self._pool.ask()
        except StoreError as error:
            self._faults.tell(error)
            raise

    @contextmanager
    def _lent(self) -> Iterator[PostgresConnection]:
        with ExitStack() as lent:
            try:
                connection = lent.enter_context(self._pool.connection())
            except StoreError as error:
                raise self._away(error) from error
            yield connection

    def _away(self, error: StoreError) -> StoreError:
        """What clients are told for the pool's words, which name the server."""
        return store_fault(UNREACHABLE, error, self._pool.address.shown, retry_after_s=RETRY_AFTER_S)

    def _commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Each work's answer or error, in order: in one message where none of them needs an answer."""
        outcomes: list[Any] = []
        while len(outcomes) < len(works):
            rest = works[len(outcomes) :]
            batch = PostgresBatch(rest)
            if not batch:
                return outcomes + self._one_after_another(rest)
            outcomes += self._send(batch) or self._one_after_another(rest[: len(batch)])
        return outcomes

    def _send(self, batch: PostgresBatch) -> list[Any] | None:
        """Its works' outcomes; None when it was refused, for a reason that one of its works has."""
        try:
            with self._lent() as connection:
                return batch.answers if batch.commit(connection) else None
        except StoreError as error:
            self._faults.tell(error)
            return [copy.copy(error) for _ in range(len(batch))]

    def _one_after_another(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Those before one that fails are committed together, those after it too: no neighbour pays for it.

        Rejected: savepoints, two round trips a work.
        """
        outcomes: list[Any] = []
        while len(outcomes) < len(works):
            rest = works[len(outcomes) :]
            try:
                outcomes += self._transact(rest, WRITE)
            except WorkFailed as failed:
                before = self._before(rest[: failed.index])
                outcomes += before
                if len(before) == failed.index:
                    outcomes.append(client_error(failed.cause, self._pool.address.shown))
            except StoreError as error:
                outcomes += [copy.copy(error) for _ in rest]
        return outcomes

    def _before(self, works: Sequence[Work[Any]]) -> list[Any]:
        """The outcomes of works that went well once: of as many of them as still do."""
        if not works:
            return []
        try:
            return self._transact(works, WRITE)
        except WorkFailed as failed:
            return self._before(works[: failed.index])
        except StoreError as error:
            return [copy.copy(error) for _ in works]

    def _read(self, work: Work[T]) -> T:
        try:
            return self._transact([work], READ)[0]
        except WorkFailed as failed:
            error = client_error(failed.cause, self._pool.address.shown)
        raise error

    def _transact(self, works: Sequence[Work[Any]], begin: bytes) -> list[Any]:
        def attempt() -> list[Any]:
            with self._lent() as connection:
                return transact(connection, works, begin)

        return persist(attempt, self._pool.address.shown, self._faults)


def _hand_over(done: asyncio.Future[T], answer: asyncio.Future[T]) -> None:
    error = None if done.cancelled() else done.exception()
    if answer.done():
        return
    if done.cancelled():
        answer.cancel()
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


def _details(transaction: Transaction) -> dict[str, Any]:
    row = transaction.execute(
        "SELECT current_setting('server_version'), current_schema(), COALESCE((SELECT"
        " SUM(pg_total_relation_size(c.oid)) FROM pg_class c"
        " WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace), 0)"
    ).fetchone()
    return {"server": f"PostgreSQL {row[0]}", "schema": row[1], "size_bytes": int(row[2])}


def _room(transaction: Transaction) -> ServerRoom:
    limits = transaction.execute(
        "SELECT current_setting('max_connections')::int,"
        " current_setting('superuser_reserved_connections')::int"
        " + COALESCE(current_setting('reserved_connections', true), '0')::int"
    ).fetchone()
    held = transaction.execute(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        " AND application_name <> current_setting('application_name')"
    ).fetchone()
    return ServerRoom(limits[0], limits[1], held[0])
