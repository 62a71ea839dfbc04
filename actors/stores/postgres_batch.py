"""Writes that need no answer before their commit: they go to the server with it, and are answered once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from actors.stores.database import Cursor, Work
from actors.stores.postgres_connection import PostgresConnection
from actors.stores.postgres_pipeline import WireStatement, run_together, wire_bytes, wire_value
from actors.stores.postgres_transaction import (
    COMMIT,
    WRITE,
    insertions,
    lost_in_commit,
    numbered,
    undo,
)

MOST_BYTES = 64_000
"""Of parameters in one batch: what a socket's buffer takes at once."""
_ROWS_BYTES = 7_168
"""Of parameters in one INSERT of several rows: it goes in one piece (see postgres_pipeline.SEND_BYTES)."""

WireRow = list[tuple[bytes | None, int]]
"""Values, each with 1 where it is binary."""

# A division by zero is what undoes a batch that took a change for granted. The server logs it with this text.
_OR_UNDONE = " RETURNING 1) SELECT 1 / COUNT(*) FROM changed /* 0: not so, therefore undone and done again */"


class NeedsAnswer(Exception):
    """A work asked the database for something, so it cannot be collected."""


class CollectedWork:
    """What one work writes, and what it answered; see actors.stores.database.Transaction."""

    __slots__ = ("answer", "changes", "rows", "size_bytes")

    def __init__(self) -> None:
        self.answer: Any = None
        self.changes: list[tuple[str, WireRow]] = []
        self.rows: list[tuple[str, WireRow]] = []
        self.size_bytes = 0

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Never: raises NeedsAnswer."""
        raise NeedsAnswer

    def changes_one(self, sql: str, parameters: Sequence[Any] = ()) -> bool:
        """Taken for granted; the server undoes the batch when it is not so."""
        self.changes.append((sql, self._wire(parameters)))
        return True

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Written after all changes."""
        self.rows += [(sql, self._wire(row)) for row in rows]

    def _wire(self, values: Sequence[Any]) -> WireRow:
        row = [(wire_value(value), int(type(value) is bytes)) for value in values]
        self.size_bytes += _size_bytes(row)
        return row


class PostgresBatch:
    """The first of some works that need no answers, as one transaction that waits for one answer.

    A commit of a run took five round trips, each of which takes the interpreter's lock anew, slow in a busy
    process; and the rows of works that share a batch share their INSERTs.
    """

    def __init__(self, works: Sequence[Work[Any]]) -> None:
        """Calls the works; nothing is sent. Those from the first that does not fit on are left out."""
        self._works: list[CollectedWork] = []
        left_bytes = MOST_BYTES
        for work in works:
            collected = _collected(work)
            if collected is None or collected.size_bytes > left_bytes:
                break
            left_bytes -= collected.size_bytes
            self._works.append(collected)

    def __len__(self) -> int:
        """How many of the works it has."""
        return len(self._works)

    @property
    def answers(self) -> list[Any]:
        """What its works answered, in order; true once it is committed."""
        return [work.answer for work in self._works]

    def statements(self) -> Iterator[WireStatement]:
        """All changes in the works' order, then the rows of each kind together."""
        yield WireStatement(WRITE.decode())
        rows: dict[str, list[WireRow]] = {}
        for work in self._works:
            for sql, row in work.changes:
                yield _statement(f"WITH changed AS ({sql}{_OR_UNDONE}", row)
            for sql, row in work.rows:
                rows.setdefault(sql, []).append(row)
        for sql, all_rows in rows.items():
            for some in _shares(all_rows):
                for text, values in insertions(sql, some):
                    yield _statement(text, values)
        yield WireStatement(COMMIT.decode())

    def commit(self, connection: PostgresConnection) -> bool:
        """Whether it is committed; if not, nothing is kept, and each work must be asked why. Blocking.

        Raises StoreError when the connection was lost, after which it may have been made. Whatever it raises,
        the connection is closed: nobody is lent one in the middle of a pipeline.
        """
        try:
            if run_together(connection, list(self.statements())) == COMMIT:
                return True
            undo(connection)
        except psycopg.Error as error:
            connection.close()
            raise lost_in_commit(error) from error
        except BaseException:
            connection.close()
            raise
        return False


def _statement(sql: str, row: WireRow) -> WireStatement:
    return WireStatement(numbered(sql), [value for value, _ in row], [binary for _, binary in row])


def _size_bytes(row: WireRow) -> int:
    return wire_bytes([value for value, _ in row])


def _shares(rows: Sequence[WireRow]) -> Iterator[list[WireRow]]:
    """All rows in order, as many together as go in one piece; a larger one alone."""
    share: list[WireRow] = []
    left_bytes = _ROWS_BYTES
    for row in rows:
        size_bytes = _size_bytes(row)
        if share and size_bytes > left_bytes:
            yield share
            share, left_bytes = [], _ROWS_BYTES
        share.append(row)
        left_bytes -= size_bytes
    yield share


def _collected(work: Work[Any]) -> CollectedWork | None:
    """None for a work that needs an answer, or that raises: it is done once more, where that is heard."""
    collected = CollectedWork()
    try:
        collected.answer = work(collected)
    except Exception:  # noqa: BLE001 - not lost: see above
        return None
    return collected
