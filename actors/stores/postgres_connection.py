"""One connection to PostgreSQL as this runtime wants it: every wait on it ends."""

from __future__ import annotations

import select
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown

from actors.stores.postgres_url import PostgresAddress
from registries.contracts.errors import ValidationError

CONNECT_TIMEOUT_S = 2
TCP_TIMEOUT_MS = 2_000
"""Data that the other machine does not acknowledge for so long ends the connection (Linux)."""
KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 3
"""Both ends find out within eight seconds that the other machine is gone, though nothing is being sent."""
STATEMENT_TIMEOUT_S = 30
"""Statistics over a large database and an index that is made; commits take milliseconds."""
LOCK_TIMEOUT_S = 2
IDLE_IN_TRANSACTION_S = 5
"""A process that is stopped in the middle of a transaction lets go of its rows before they are missed."""
ANSWER_TIMEOUT_S = STATEMENT_TIMEOUT_S + 5
"""The server ends a statement before that; who is still silent then has stopped or is out of reach."""

_SETTINGS: tuple[tuple[str, str], ...] = (
    ("statement_timeout", f"{STATEMENT_TIMEOUT_S}s"),
    ("lock_timeout", f"{LOCK_TIMEOUT_S}s"),
    ("idle_in_transaction_session_timeout", f"{IDLE_IN_TRANSACTION_S}s"),
    # A server may have it off for all; what we acknowledge is on the disk.
    ("synchronous_commit", "on"),
    # The server's own: a machine that is lost lets go of its rows. Nothing to sockets of the same machine.
    ("tcp_keepalives_idle", f"{KEEPALIVE_IDLE_S}"),
    ("tcp_keepalives_interval", f"{KEEPALIVE_INTERVAL_S}"),
    ("tcp_keepalives_count", f"{KEEPALIVE_COUNT}"),
)


class PostgresConnection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection; a server that does not answer in time ends it, instead of blocking a thread.

    ``prepared_names`` are those of the statements that actors.stores.postgres_pipeline has prepared, by text.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared_names: dict[str, bytes] = {}
        self._names = 0

    def new_name(self) -> bytes:
        """For a statement; none is given twice."""
        self._names += 1
        return b"parley_%d" % self._names

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises psycopg.OperationalError, and closes itself, after ANSWER_TIMEOUT_S without an answer."""
        try:
            return super().wait(gen, interval, ANSWER_TIMEOUT_S if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {ANSWER_TIMEOUT_S} s") from error

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        """psycopg's; after a ROLLBACK it has the server forget all prepared statements (None), ours too."""
        if name is None:
            self.prepared_names.clear()
        yield from super()._deallocate(name)


def connection_options(address: PostgresAddress, name: str) -> dict[str, Any]:
    """Arguments of ``connect``; what the URL says itself stays. ``name`` is shown in pg_stat_activity.

    Raises ValidationError without libpq's words, which repeat parts of the URL.
    """
    try:
        given = conninfo_to_dict(address.conninfo)
    except psycopg.ProgrammingError:
        raise ValidationError(
            "PARLEY_STORE_URL has an option, a port or an escape that PostgreSQL does not know",
            param="store_url",
        ) from None
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": name,
        "client_encoding": "utf8",
        "keepalives": 1,
        "keepalives_idle": KEEPALIVE_IDLE_S,
        "keepalives_interval": KEEPALIVE_INTERVAL_S,
        "keepalives_count": KEEPALIVE_COUNT,
        "tcp_user_timeout": TCP_TIMEOUT_MS,
    }
    return {**defaults, **given, "autocommit": True}


def prepare_connection(connection: psycopg.Connection[Any], schema: str | None) -> None:
    """Settings of the session, and the types that differ from SQLite's; one round trip."""
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_loader("numeric", _NumberLoader)
    settings = [*_SETTINGS, *([("search_path", f'"{schema}"')] if schema else [])]
    calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
    connection.execute(f"SELECT {calls}".encode(), [text for setting in settings for text in setting])


def is_alive(connection: psycopg.Connection[Any]) -> bool:
    """Whether an idle connection can be used; asks the server only when something has come in unasked."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    if not poll.poll(0):
        return True
    try:
        connection.execute(b"")
    except psycopg.Error:
        return False
    return True


def storable(text: str) -> str:
    """PostgreSQL's texts hold no NUL sign; a model's answer may. It becomes the sign for unknown ones."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        return super().dump(storable(obj))


class _NumberLoader(Loader):
    """Sums of whole numbers are ``numeric`` in PostgreSQL: as in SQLite, int where whole, else float."""

    def load(self, data: Any) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)
