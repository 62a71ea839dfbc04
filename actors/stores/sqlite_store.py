"""Runs in one SQLite file: the embedded default, for one node and any number of its processes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from actors.stores.group_commit import commit_together
from actors.stores.sqlite_schema import migrate
from registries.contracts.errors import Conflict, StoreError
from registries.contracts.generation import Message
from registries.contracts.runs import ErrorFact, RunEvent, RunOrder, RunResult

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
BUSY_TIMEOUT_S = 30.0
"""How long one process waits for another's commit; commits take milliseconds, a slow disk under load more."""


class SQLiteStore:
    """One connection on one thread a process; WAL with synchronous=FULL, writes by BEGIN IMMEDIATE.

    Writes that come while another is being committed share the next commit (see commit_together).
    The thread serialises this process, SQLite's lock serialises processes: no commit is lost or interleaved.
    Cancelling an awaiting caller does not undo a commit that the thread has begun.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, path: Path) -> None:
        self._connection = connection
        self._thread = thread
        self._path = path
        self._closed = False
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> SQLiteStore:
        """Open or make the file and bring its schema up to date; raises StoreError with the path."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, path)
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StoreError(f"the database {path} cannot be opened: {error}", param="store_url") from error
        return cls(connection, thread, path)

    async def accept(self, order: RunOrder, flow_version: str) -> None:
        """Write the run as queued; Conflict for a run_id that exists."""
        await self._write(lambda c: c.execute(_INSERT_RUN, _new_run(order, flow_version)))

    async def claim(self, order: RunOrder, flow_version: str) -> int | None:
        """Take a queued run, or a running one with a higher attempt; the seq of its last event, or None."""

        def write(connection: sqlite3.Connection) -> int | None:
            connection.execute(
                f"{_INSERT_RUN} ON CONFLICT (run_id) DO NOTHING", _new_run(order, flow_version)
            )
            taken = connection.execute(
                "UPDATE runs SET status = 'running', attempt = ?, started_at = COALESCE(started_at, ?)"
                " WHERE run_id = ? AND (status = 'queued' OR (status = 'running' AND attempt < ?))",
                (order.attempt, time.time(), order.run_id, order.attempt),
            ).rowcount
            return _last_seq(connection, order.run_id) if taken else None

        return await self._write(write)

    async def append_events(self, events: Sequence[RunEvent]) -> None:
        """Write durable events in one commit."""
        if events:
            await self._write(lambda c: _insert_events(c, events))

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool:
        """Terminal state, result and last events in one commit; False when the run had already ended."""

        def write(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(
                "UPDATE runs SET status = ?, result = ?, finished_at = ?"
                " WHERE run_id = ? AND status IN ('queued', 'running')",
                (result.status, result.model_dump_json(), time.time(), run_id),
            ).rowcount
            if changed:
                _insert_events(connection, events)
            return changed == 1

        return await self._write(write)

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        """The run as JSON values, or None."""

        def read(connection: sqlite3.Connection) -> dict[str, Any] | None:
            cursor = connection.execute(
                "SELECT * FROM runs WHERE run_id = ? AND tenant = ?", (run_id, tenant)
            )
            row = cursor.fetchone()
            return _run(cursor, row) if row else None

        return await self._call(read)

    async def events(self, run_id: str, tenant: str, after: int = 0) -> list[RunEvent]:
        """Durable events with seq > after, in order."""
        sql = (
            "SELECT e.seq, e.time, e.type, e.node, e.attempt, e.data FROM events e JOIN runs r USING (run_id)"
            " WHERE r.run_id = ? AND r.tenant = ? AND e.seq > ? ORDER BY e.seq"
        )
        rows = await self._call(lambda c: c.execute(sql, (run_id, tenant, after)).fetchall())
        return [
            RunEvent(
                run_id=run_id, seq=seq, time=at, type=kind, node=node, attempt=attempt, data=json.loads(data)
            )
            for seq, at, kind, node, attempt, data in rows
        ]

    async def history(self, conversation_id: str, tenant: str, limit: int) -> list[Message]:
        """The conversation's last messages, newest last."""
        sql = (
            "SELECT json_extract(request, '$.prompt'), json_extract(result, '$.answer') FROM runs"
            " WHERE tenant = ? AND conversation_id = ? AND status = 'completed'"
            " ORDER BY created_at DESC LIMIT ?"
        )
        rows = await self._call(lambda c: c.execute(sql, (tenant, conversation_id, limit)).fetchall())
        turns: list[Message] = []
        for question, answer in reversed(rows):
            turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
        return turns[-limit:] if limit > 0 else []

    async def mark_interrupted(self, reason: str) -> int:
        """Fail every run left open by a runtime that died; the reason is its error and its last event."""
        return await self._write(lambda c: _interrupt_all(c, reason))

    async def close(self) -> None:
        """Close the file after what was handed in; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    async def _write(self, work: Work[T]) -> T:
        """One write, committed when this returns; writes that wait at the same time share a commit."""
        self._ensure_open()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, answer))
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_waiting(), name="sqlite-writer")
        with self._our_errors():
            return await answer

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            works = [work for work, _ in group]
            outcomes = await loop.run_in_executor(self._thread, commit_together, self._connection, works)
            for (_, answer), outcome in zip(group, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)

    async def _call(self, work: Work[T]) -> T:
        self._ensure_open()
        with self._our_errors():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)

    def _ensure_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self._path} is closed")

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise Conflict(f"the database refused a duplicate or dangling row: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the database {self._path} cannot be used: {error}", retry_after_s=1.0
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _last_seq(connection: sqlite3.Connection, run_id: str) -> int:
    sql = "SELECT COALESCE(MAX(seq), 0) FROM events WHERE run_id = ?"
    return int(connection.execute(sql, (run_id,)).fetchone()[0])


_INSERT_RUN = (
    "INSERT INTO runs (run_id, tenant, user, request_id, flow, flow_version, status, conversation_id,"
    " request, traceparent, created_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)"
)


def _new_run(order: RunOrder, flow_version: str) -> tuple[Any, ...]:
    return (
        order.run_id,
        order.tenant,
        order.user,
        order.request_id,
        order.request.flow_type,
        flow_version,
        order.request.conversation_id,
        order.request.model_dump_json(),
        order.traceparent,
        time.time(),
    )


def _insert_events(connection: sqlite3.Connection, events: Sequence[RunEvent]) -> None:
    connection.executemany(
        "INSERT INTO events (run_id, seq, time, type, node, attempt, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(e.run_id, e.seq, e.time, e.type, e.node, e.attempt, json.dumps(e.data)) for e in events],
    )


def _interrupt_all(connection: sqlite3.Connection, reason: str) -> int:
    rows = connection.execute(
        "SELECT run_id, flow, flow_version, request_id FROM runs WHERE status IN ('queued', 'running')"
    ).fetchall()
    now = time.time()
    for run_id, flow, version, request_id in rows:
        result = RunResult(
            run_id=run_id,
            flow=flow,
            flow_version=version,
            status="failed",
            request_id=request_id,
            error=ErrorFact(code="interrupted", message=reason, retryable=True),
        )
        connection.execute(
            "UPDATE runs SET status = 'failed', result = ?, finished_at = ? WHERE run_id = ?",
            (result.model_dump_json(), now, run_id),
        )
        data = {"result": result.model_dump(mode="json")}
        event = RunEvent(
            run_id=run_id, seq=_last_seq(connection, run_id) + 1, time=now, type="run.failed", data=data
        )
        _insert_events(connection, [event])
    return len(rows)


def _run(cursor: sqlite3.Cursor, row: Sequence[Any]) -> dict[str, Any]:
    run = dict(zip((column[0] for column in cursor.description), row, strict=True))
    run["request"] = json.loads(run["request"])
    run["result"] = json.loads(run["result"]) if run["result"] else None
    return run
