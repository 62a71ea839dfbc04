"""A batch on its way to a real server: what leaves together, and what the server keeps prepared."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import pq

from actors.stores import postgres_batch
from actors.stores.connection_share import ConnectionShare
from actors.stores.database import Transaction, Work
from actors.stores.postgres_batch import PostgresBatch
from actors.stores.postgres_connection import IDLE_IN_TRANSACTION_S, PostgresConnection
from actors.stores.postgres_database import PostgresDatabase
from actors.stores.postgres_pipeline import run_together
from registries.contracts.errors import LeaseLost, StoreError
from tests.polling import until

ADD = "INSERT INTO turns (job, taken_at) VALUES (?, 0.0) ON CONFLICT DO NOTHING"
ROW = "INSERT INTO turns (job, taken_at) VALUES (?, {now})"
RAISE = "UPDATE turns SET taken_at = taken_at + 1 WHERE job = ?"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    opened = await PostgresDatabase.open(postgres_url, ConnectionShare(1, 2))
    yield opened
    await opened.close()


def adding(job: str, rows: int = 0, size: int = 10) -> Work[bool]:
    def work(tx: Transaction) -> bool:
        if not tx.changes_one(ADD, (job,)):
            raise LeaseLost(f"{job} was there")
        tx.executemany(ROW, [(f"{job}.{number}".ljust(size, "x"),) for number in range(rows)])
        return True

    return work


def raising(job: str, rows: int = 0) -> Work[None]:
    def work(tx: Transaction) -> None:
        assert tx.changes_one(RAISE, (job,))
        tx.executemany(ROW, [(f"of {job}.{number}".ljust(3_000, "x"),) for number in range(rows)])

    return work


@contextmanager
def lent(database: PostgresDatabase) -> Iterator[PostgresConnection]:
    with database._pool.connection() as connection:
        yield connection


class Stopped(Exception):
    """The process went no further."""


class Watched:
    """A connection whose libpq calls ``before`` ahead of everything that it sends."""

    def __init__(self, connection: PostgresConnection, before: Any) -> None:
        self._connection, self._before = connection, before
        self.pgconn = self

    def __getattr__(self, name: str) -> Any:
        owner = self._connection if hasattr(self._connection, name) else self._connection.pgconn
        if name.startswith("send_") or name == "pipeline_sync":
            self._before(name)
        return getattr(owner, name)


async def test_wherever_it_is_stopped_no_row_stays_locked(
    database: PostgresDatabase, postgres_url: str
) -> None:
    """Stopped ahead of every single call that sends something: a Sync is behind all that has left."""
    moments = range(1, 30)
    await asyncio.gather(*(database.write(adding(f"hot {moment}")) for moment in moments))
    other = await PostgresDatabase.open(postgres_url, ConnectionShare(10, 31))
    left = []
    for moment in moments:
        connection = other._pool.connect()
        left.append(connection)
        calls = iter(range(1, moment))

        def stop(name: str, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise Stopped

        statements = list(PostgresBatch([raising(f"hot {moment}", rows=12)]).statements())
        with suppress(Stopped):
            run_together(Watched(connection, stop), statements)  # type: ignore[arg-type]
    stopped_at = time.monotonic()
    missing = {f"hot {moment}" for moment in moments}

    async def all_raised() -> bool:
        jobs = sorted(missing)
        outcomes = await asyncio.gather(
            *(other.write(raising(job), job) for job in jobs), return_exceptions=True
        )
        assert all(outcome is None or isinstance(outcome, StoreError) for outcome in outcomes)
        missing.difference_update(job for job, out in zip(jobs, outcomes, strict=True) if out is None)
        return not missing

    try:
        await until(all_raised, IDLE_IN_TRANSACTION_S + 15)
    finally:
        print(f"{time.monotonic() - stopped_at:.1f} s, still locked: {sorted(missing)}")
        for connection in left:
            connection.close()
        await other.close()


@contextmanager
def relay(host: str, port: int) -> Iterator[tuple[int, list[int]]]:
    """A port that leads to the server, and how many bytes came to it so far."""
    arrived = [0]

    def pump(source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                arrived[0] += len(data) if counted else 0
                sink.sendall(data)

    def serve() -> None:
        client, _ = door.accept()
        server = socket.create_connection((host, port))
        threading.Thread(target=pump, args=(server, client, False), daemon=True).start()
        pump(client, server, True)

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1], arrived


class Unsent:
    """Ahead of every call: nothing has arrived since the last piece's end."""

    def __init__(self, arrived: list[int]) -> None:
        self._arrived, self._settled, self._ended = arrived, 0, True
        self._before = 0
        self.pieces = 0

    def __call__(self, name: str) -> None:
        if self._ended:
            self._settle()
        time.sleep(0.005)
        assert self._arrived[0] == self._settled, f"sent before its Sync, ahead of {name}"
        self._ended = name == "pipeline_sync"
        self.pieces += self._ended

    def _settle(self) -> None:
        still = 0
        while still < 10 or (self.pieces and self._arrived[0] == self._before):
            still = still + 1 if self._arrived[0] == self._settled else 0
            self._settled = self._arrived[0]
            time.sleep(0.01)
        self._before = self._settled


def test_nothing_leaves_before_its_piece_is_whole(postgres_dsn: str) -> None:
    parts = urlsplit(postgres_dsn)
    with relay(parts.hostname or "127.0.0.1", parts.port or 5432) as (port, arrived):
        user = parts.netloc.rpartition("@")[0]
        there = parts._replace(netloc=f"{user}{'@' if user else ''}127.0.0.1:{port}").geturl()
        with PostgresConnection.connect(there, autocommit=True, sslmode="disable") as connection:
            connection.execute(b"CREATE TEMPORARY TABLE turns (job TEXT, taken_at FLOAT8)")
            connection.execute(b"CREATE TEMPORARY TABLE migrations (version INT)")
            batch = PostgresBatch([adding(f"a{n}", rows=4, size=60 * n) for n in range(20)])
            assert len(batch) == 20
            unsent = Unsent(arrived)
            watched: Any = Watched(connection, unsent)
            assert run_together(watched, list(batch.statements())) == b"COMMIT"
            assert unsent.pieces > 3


def names_there(connection: PostgresConnection) -> set[bytes]:
    found = connection.execute(
        b"SELECT name FROM pg_prepared_statements WHERE name LIKE 'parley%'"
    ).fetchall()
    return {name.encode() for (name,) in found}


async def test_what_the_server_keeps_prepared_is_known_after_every_refusal(
    database: PostgresDatabase,
) -> None:
    with lent(database) as connection:
        counts = []
        for number in range(12):
            works = [adding(f"a{number}", 2), adding(f"a{number}"), adding(f"b{number}", 3 + number % 4)]
            assert not PostgresBatch(works).commit(connection)
            assert PostgresBatch([adding(f"c{number}", 1 + number % 4)]).commit(connection)
            assert names_there(connection) == set(connection.prepared_names.values())
            counts.append(len(connection.prepared_names))
        assert counts[-1] == counts[4], "it grows with every refusal"


async def test_what_the_server_has_forgotten_is_prepared_anew(database: PostgresDatabase) -> None:
    with lent(database) as connection:
        assert PostgresBatch([adding("a")]).commit(connection)
        # psycopg prepares what it is given often, and gives all up after a ROLLBACK.
        for _ in range(8):
            connection.execute(b"SELECT 1")
        connection.execute(b"ROLLBACK")
        connection.execute(b"SELECT 1")
        assert names_there(connection) == set(connection.prepared_names.values()) == set()
        assert PostgresBatch([adding("b")]).commit(connection)
        connection.execute(b"DISCARD PLANS")
        connection.pgconn.exec_(b"DEALLOCATE ALL")
        assert not PostgresBatch([adding("c")]).commit(connection)
        assert PostgresBatch([adding("c")]).commit(connection)
        assert names_there(connection) == set(connection.prepared_names.values())


@pytest.mark.parametrize("fault", [TypeError("unforeseen"), psycopg.InterfaceError("broken")])
async def test_a_batch_that_breaks_gives_back_no_connection_in_the_middle_of_it(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def break_off(connection: PostgresConnection, statements: Any) -> bytes:
        connection.pgconn.enter_pipeline_mode()
        raise fault

    with lent(database) as connection:
        monkeypatch.setattr(postgres_batch, "run_together", break_off)
        with pytest.raises((TypeError, StoreError)):
            PostgresBatch([adding("a")]).commit(connection)
        assert connection.closed


async def test_pieces_behind_a_begin_that_was_refused_write_nothing(database: PostgresDatabase) -> None:
    statements = list(PostgresBatch([adding("hot", rows=12, size=2_000)]).statements())
    refused = [type(statements[0])("BEGIN ISOLATION LEVEL nonsense"), *statements[1:]]
    with lent(database) as connection:
        assert run_together(connection, refused) is None
        assert connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
        assert connection.execute(b"SELECT COUNT(*) FROM turns").fetchone() == (0,)


async def test_the_server_looks_for_a_machine_that_is_lost(database: PostgresDatabase) -> None:
    with lent(database) as connection:
        names = b"'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count'"
        found = connection.execute(b"SELECT setting FROM pg_settings WHERE name IN (%s)" % names).fetchall()
        local = connection.info.host.startswith("/")
        assert sorted(found) == ([("0",)] * 3 if local else [("1",), ("3",), ("5",)])
