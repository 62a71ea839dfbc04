"""Statements that go to PostgreSQL in one message, and are answered in one."""

from __future__ import annotations

import select
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from actors.stores.postgres_connection import ANSWER_TIMEOUT_S, PostgresConnection, storable

SEND_BYTES = 8_192
"""libpq sends what it holds as soon as a message of the protocol ends behind so many bytes (pqPutMsgEnd), and
with every Sync. What is smaller, its Sync included, leaves in one piece."""
_PARSE_BYTES = 9
_RUN_BYTES = 32
"""Bind, Describe and Execute, without the name, and six for each parameter: its format and its length."""
_VALUE_BYTES = 6
_SYNC_BYTES = 5
_GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_UNKNOWN_NAME = b"26000"


@dataclass(frozen=True, slots=True)
class WireStatement:
    """``text`` with ``$1`` …, and its parameters as they go over the wire (see ``wire_value``)."""

    text: str
    values: Sequence[bytes | None] = ()
    binary: Sequence[int] = ()


# An error outside of a transaction: were the BEGIN refused, the pieces after the first would commit alone.
_STILL_OPEN = WireStatement("LOCK TABLE migrations IN ACCESS SHARE MODE")


def wire_value(value: Any) -> bytes | None:
    """A parameter of any type of our tables, for a statement whose types the server infers.

    Raises TypeError for another type, UnicodeEncodeError for halves of surrogate pairs.
    """
    if value is None or type(value) is bytes:
        return value
    if type(value) is str:
        return storable(value).encode()
    if type(value) is int or type(value) is float:
        return repr(value).encode()
    raise TypeError(f"no parameter of a batch: {type(value).__name__}")


def wire_bytes(values: Sequence[bytes | None]) -> int:
    """What parameters take in a message."""
    return sum(_VALUE_BYTES + len(value or b"") for value in values)


def run_together(connection: PostgresConnection, statements: Sequence[WireStatement]) -> bytes | None:
    """The command tag of the last one when all went well, else None; a transaction may be left open then.

    The first begins a transaction. They go in pieces, none of which waits for an answer: a process that is
    stopped has sent a piece whole or not at all, and behind each the server's
    idle_in_transaction_session_timeout runs. Only a statement that is too large for one leaves in two sends,
    moments apart.

    libpq directly, and not psycopg's pipeline: that one sends and looks for answers at every statement, and
    takes statements for prepared whose preparation the server skipped after an error. Here a statement counts
    as prepared when the server said so (it stays so whatever becomes of the transaction), and no name is used
    twice. Blocking; raises psycopg.OperationalError, the connection closed, when it is lost or no answer
    comes.
    """
    pgconn = connection.pgconn
    sending = _Sending(connection)
    pgconn.enter_pipeline_mode()
    for statement in statements:
        sending.send(statement)
    sending.end_piece()
    tag = _last_tag(connection, sending)
    pgconn.exit_pipeline_mode()
    return tag


class _Sending:
    """Statements on their way; ``preparing`` has for each command the text and name that it prepares."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.preparing: list[tuple[str, bytes] | None] = []
        self.pieces = 0
        self._connection = connection
        self._fresh: dict[str, bytes] = {}
        self._piece_bytes = 0

    def send(self, statement: WireStatement) -> None:
        """In the piece that is being made, or in the next one."""
        pgconn, text = self._connection.pgconn, statement.text
        name = self._connection.prepared_names.get(text) or self._fresh.get(text)
        if name is None:
            name, sql = self._connection.new_name(), text.encode()
            self._make_room(_PARSE_BYTES + len(name) + len(sql))
            pgconn.send_prepare(name, sql)
            self._fresh[text] = name
            self.preparing.append((text, name))
        self._make_room(_RUN_BYTES + len(name) + wire_bytes(statement.values))
        pgconn.send_query_prepared(name, statement.values, statement.binary)
        self.preparing.append(None)

    def end_piece(self) -> None:
        """Let it go."""
        self._connection.pgconn.pipeline_sync()
        self.pieces += 1
        self._piece_bytes = 0

    def _make_room(self, size_bytes: int) -> None:
        if self._piece_bytes and self._piece_bytes + size_bytes + _SYNC_BYTES >= SEND_BYTES:
            self.end_piece()
            self.send(_STILL_OPEN)
        self._piece_bytes += size_bytes


def _last_tag(connection: PostgresConnection, sending: _Sending) -> bytes | None:
    pgconn, known = connection.pgconn, connection.prepared_names
    tag: bytes | None = None
    failed = False
    commands = iter(sending.preparing)
    pieces_left = sending.pieces
    while pieces_left:
        result = _next_result(pgconn)
        if result is None:
            if pgconn.status == pq.ConnStatus.BAD:
                raise _lost(pgconn, pgconn.get_error_message().strip())
            continue
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            pieces_left -= 1
            continue
        preparation = next(commands)
        if result.status in _GOOD:
            tag = result.command_status
            if preparation is not None:
                known.update([preparation])
            continue
        failed = True
        if result.error_field(pq.DiagnosticField.SQLSTATE) == _UNKNOWN_NAME:
            # Somebody has taken our statements away, such as DISCARD of a proxy.
            known.clear()
    return None if failed else tag


def _next_result(pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """None after the last one of each statement."""
    poll = select.poll()
    while pgconn.is_busy():
        unsent = select.POLLOUT if pgconn.flush() else 0
        poll.register(pgconn.socket, select.POLLIN | unsent)
        if not poll.poll(ANSWER_TIMEOUT_S * 1000):
            raise _lost(pgconn, f"no answer within {ANSWER_TIMEOUT_S} s")
        pgconn.consume_input()
    return pgconn.get_result()


def _lost(pgconn: pq.abc.PGconn, why: str) -> psycopg.OperationalError:
    pgconn.finish()
    return psycopg.OperationalError(why or "the connection was lost")
