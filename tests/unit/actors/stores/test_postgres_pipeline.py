"""What leaves in one piece, without a server."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from actors.stores.postgres_pipeline import SEND_BYTES, WireStatement, _Sending

ROW = "INSERT INTO rows (id, data) VALUES ($1, $2)"
GUARD = "LOCK TABLE"


class Wire:
    """A connection whose libpq lays the protocol's messages out, one list a piece."""

    def __init__(self) -> None:
        self.prepared_names: dict[str, bytes] = {}
        self.pgconn = self
        self.pieces: list[list[tuple[str, bytes]]] = [[]]
        self._texts: dict[bytes, str] = {}
        self._names = 0

    def new_name(self) -> bytes:
        self._names += 1
        return b"parley_%d" % self._names

    def send_prepare(self, name: bytes, sql: bytes) -> None:
        assert name not in self._texts
        self._texts[name] = sql.decode()
        self._put("prepare", b"P", name + b"\0" + sql + b"\0" + struct.pack("!h", 0))

    def send_query_prepared(self, name: bytes, values: list[bytes | None], binary: list[int]) -> None:
        body = b"\0" + name + b"\0" + struct.pack("!h", len(binary))
        body += b"".join(struct.pack("!h", each) for each in binary) + struct.pack("!h", len(values))
        for value in values:
            body += struct.pack("!i", -1 if value is None else len(value)) + (value or b"")
        self._put(self._texts[name], b"B", body + struct.pack("!hh", 1, 0))
        self._put("describe", b"D", b"P\0")
        self._put("execute", b"E", b"\0" + struct.pack("!i", 0))

    def pipeline_sync(self) -> None:
        self._put("sync", b"S", b"")
        self.pieces.append([])

    def _put(self, what: str, kind: bytes, body: bytes) -> None:
        self.pieces[-1].append((what, kind + struct.pack("!i", 4 + len(body)) + body))


def sent(statements: list[WireStatement]) -> list[list[tuple[str, bytes]]]:
    wire = Wire()
    sending = _Sending(wire)  # type: ignore[arg-type]
    for statement in statements:
        sending.send(statement)
    sending.end_piece()
    *pieces, rest = wire.pieces
    assert sending.pieces == len(pieces) and rest == []
    return pieces


def row(size: int | None) -> WireStatement:
    return WireStatement(ROW, [b"id", None if size is None else b"x" * size], [0, 1])


@given(st.lists(st.none() | st.integers(0, 7_900), max_size=40), st.integers(0, 7_900))
def test_every_piece_is_less_than_what_libpq_keeps(sizes: list[int | None], text: int) -> None:
    statements = [WireStatement("BEGIN"), *map(row, sizes), WireStatement("SELECT /*" + "x" * text + "*/ 1")]
    pieces = sent([*statements, WireStatement("COMMIT")])
    for number, piece in enumerate(pieces):
        assert sum(len(message) for _, message in piece) < SEND_BYTES
        assert piece[-1][0] == "sync"
        told = [what for what, _ in piece if what not in ("prepare", "describe", "execute", "sync")]
        assert told[0].startswith(GUARD if number else "BEGIN")
    texts = [what for piece in pieces for what, _ in piece if what.split(" ")[0].isupper()]
    assert [text for text in texts if not text.startswith(GUARD)] == [
        *(statement.text for statement in statements), "COMMIT",
    ]  # fmt: skip


def test_what_fits_goes_together() -> None:
    assert len(sent([WireStatement("BEGIN"), row(3_500), row(3_500), WireStatement("COMMIT")])) == 1


def test_what_is_too_large_is_alone_behind_what_says_that_the_transaction_is_open() -> None:
    pieces = sent([WireStatement("BEGIN"), row(9_000), row(10), WireStatement("COMMIT")])
    assert [sum(what in (ROW, "COMMIT") for what, _ in piece) for piece in pieces] == [0, 1, 2]
    assert all(piece[1][0].startswith(GUARD) or piece[0][0].startswith(GUARD) for piece in pieces[1:])
