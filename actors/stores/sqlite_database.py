"""Runs in one SQLite file: the embedded default, for one node and any number of its processes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from actors.stores.commit_thread import CommitThread, PendingWrite
from actors.stores.database import Transaction, Work
from actors.stores.file_lock import FileLock
from actors.stores.migrations import migrate
from actors.stores.schema import MIGRATIONS
from actors.stores.sqlite_connection import BUSY_TIMEOUT_S, SqliteConnection, SqliteFile
from actors.stores.store_faults import FaultLog, for_operator
from registries.contracts.errors import Conflict, ParleyError, StoreError

T = TypeVar("T")


class SqliteDatabase:
    """WAL with synchronous=FULL: what was acknowledged survives a power cut, if the disk keeps its word.

    One thread and connection for writes, which share commits, and one for reads, which never queue behind
    them. A lock file orders the processes. Belongs to the event loop that opened it.
    """

    backend = "sqlite"

    def __init__(self, file: SqliteFile, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._closed = False
        self._faults = FaultLog()
        self._writer = CommitThread(file, "sqlite-writer", self._settle, self._faults)
        self._reader = SqliteConnection(file, read_only=True)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")

    @classmethod
    async def open(cls, file: SqliteFile) -> SqliteDatabase:
        """Open or make the file and bring its schema up to date; raises StoreError with the path."""
        try:
            await asyncio.to_thread(_prepare, file)
        except ParleyError as error:
            raise StoreError(
                f"the database {file.path} cannot be opened: {error.context.get('detail', error.message)}",
                param="store_url",
            ) from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the database {file.path} cannot be opened: {error}", param="store_url"
            ) from error
        return cls(file, asyncio.get_running_loop())

    async def write(self, work: Work[T], key: str = "") -> T:
        """See database.Database; ``key`` orders nothing here, there is one writer at a time."""
        self._ensure_open()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(PendingWrite(work, answer, lambda: not answer.done()))
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise _kept_waiting() from error

    async def read(self, work: Work[T]) -> T:
        self._ensure_open()
        try:
            answers = await self._loop.run_in_executor(self._reading, self._reader.transact, [work])
        except StoreError as error:
            self._faults.tell(error)
            raise
        answer: T = answers[0]
        return answer

    def open_transactor(self) -> SqliteTransactor:
        """A connection of one's own for a thread of one's own."""
        return SqliteTransactor(self._file, self._faults)

    def load(self, work: Work[T]) -> T:
        """See database.Database; other processes wait meanwhile."""
        connection, lock = SqliteConnection(self._file), FileLock(self._file.path)
        try:
            with lock:
                answer: T = connection.transact([work])[0]
                return answer
        except (StoreError, Conflict) as error:
            raise for_operator(error) from error
        finally:
            connection.close()
            lock.close()

    async def details(self) -> dict[str, Any]:
        sizes = await self.read(_sizes)
        log = self._file.path.with_name(self._file.path.name + "-wal")
        log_bytes = log.stat().st_size if log.exists() else 0
        return {
            "address": str(self._file.path),
            "server": f"SQLite {sqlite3.sqlite_version}",
            **sizes,
            "log_bytes": log_bytes,
            "max_page_count": self._file.max_page_count,
        }

    async def close(self) -> None:
        """Finish what was handed in; idempotent."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._writer.close, BUSY_TIMEOUT_S)
        await self._loop.run_in_executor(self._reading, self._reader.close)
        self._reading.shutdown(wait=False)

    def _settle(self, group: Sequence[PendingWrite], outcomes: Sequence[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(_answer, group, outcomes)
        except RuntimeError:
            # The loop is closed: nobody is left who could be told.
            return

    def _ensure_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


class SqliteTransactor:
    """See database.Transactor. The thread below it is what bounds the wait: flock waits without end."""

    def __init__(self, file: SqliteFile, faults: FaultLog) -> None:
        self._file = file
        self._thread = CommitThread(file, "sqlite-transactor", _wake, faults)
        self._closed = False

    def run(self, work: Work[T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        reply = _Reply()
        self._thread.submit(PendingWrite(work, reply, reply.is_wanted))
        if not reply.arrived.wait(BUSY_TIMEOUT_S):
            reply.given_up = True
            raise _kept_waiting()
        if isinstance(reply.outcome, Exception):
            raise reply.outcome
        answer: T = reply.outcome
        return answer

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._thread.close(BUSY_TIMEOUT_S)


class _Reply:
    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.outcome: Any = None
        self.given_up = False

    def is_wanted(self) -> bool:
        return not self.given_up


def _wake(group: Sequence[PendingWrite], outcomes: Sequence[Any]) -> None:
    for write, outcome in zip(group, outcomes, strict=True):
        write.answer.outcome = outcome
        write.answer.arrived.set()


def _answer(group: Sequence[PendingWrite], outcomes: Sequence[Any]) -> None:
    for write, outcome in zip(group, outcomes, strict=True):
        if write.answer.done():
            continue
        if isinstance(outcome, Exception):
            write.answer.set_exception(outcome)
        else:
            write.answer.set_result(outcome)


def _kept_waiting() -> StoreError:
    return StoreError(f"the database was held by another process for {BUSY_TIMEOUT_S:g} s", retry_after_s=1.0)


def _prepare(file: SqliteFile) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    connection = SqliteConnection(file)
    lock = FileLock(file.path)
    try:
        with lock:
            connection.transact([lambda tx: migrate(tx, MIGRATIONS["sqlite"])])
            connection.transact([lambda tx: _begin_lease_clock(tx, file.clock.boot_id())])
    finally:
        connection.close()
        lock.close()


def _begin_lease_clock(tx: Transaction, boot_id: str) -> None:
    """Leases of an earlier boot have run out: their readings belong to a clock that has begun again."""
    row = tx.execute("SELECT boot_id, reading, {lease_now} FROM lease_clock").fetchone()
    if row is not None and row[0] == boot_id and row[1] <= row[2]:
        tx.execute("UPDATE lease_clock SET reading = {lease_now}")
        return
    tx.execute("DELETE FROM lease_clock")
    tx.execute("INSERT INTO lease_clock (boot_id, reading) VALUES (?, {lease_now})", (boot_id,))
    if row is not None:
        # Below every reading, not 0: nothing says that this clock is positive.
        tx.execute("UPDATE runs SET lease_until = -1e308 WHERE status = 'running'")
        tx.execute("UPDATE kept_calls SET lease_until = -1e308 WHERE answer IS NULL")


def _sizes(tx: Transaction) -> dict[str, int]:
    pages = tx.execute(
        "SELECT page_count, page_size, freelist_count"
        " FROM pragma_page_count(), pragma_page_size(), pragma_freelist_count()"
    ).fetchone()
    return {"size_bytes": pages[0] * pages[1], "free_bytes": pages[2] * pages[1]}
