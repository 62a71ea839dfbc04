"""The little that SQLite and PostgreSQL do differently, as one protocol below all queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Sequence[Any]


class Cursor(Protocol):
    """What a query answers."""

    @property
    def rowcount(self) -> int: ...

    @property
    def description(self) -> Any: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Transaction(Protocol):
    """An open transaction. SQL is written once, for both: ``?`` for parameters, and these words

    ``{now}`` the database's wall clock and ``{lease_now}`` its lease clock (seconds, float); ``{for_update}``
    the clause that locks the rows read, and ``{skip_locked}`` the one that also leaves out rows locked by
    others (both empty for SQLite, which has one writer). A ``%``, ``?`` or ``{`` that is meant literally must
    be a parameter.
    """

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor: ...

    def changes_one(self, sql: str, parameters: Sequence[Any] = ()) -> bool:
        """Whether an INSERT or UPDATE of one row, without RETURNING, changes it.

        A database may take that for granted, and when it is not so undo everything and do the work again with
        the truth. Therefore a work has no effects outside of its transaction.
        """
        ...

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """An INSERT of one row, for many; where it replaces what exists, no two may have the same key.

        It may come after every ``changes_one`` of the transaction.
        """
        ...


Work = Callable[[Transaction], T]


class Database(Protocol):
    """Runs transactions off the event loop. Faults come out as StoreError, StoreFull or Conflict.

    A unique or foreign key that is violated is Conflict; errors of our own tree that a work raises pass
    through and undo that work alone.
    """

    backend: str

    async def write(self, work: Work[T], key: str = "") -> T:
        """One transaction, committed when this returns.

        Writes that wait at the same time share a commit; ``key`` (the run_id) orders them in it, so that two
        processes lock rows in one order. Cancelling the caller does not undo what has begun.
        """
        ...

    async def read(self, work: Work[T]) -> T:
        """One consistent read, beside the writes."""
        ...

    def open_transactor(self) -> Transactor:
        """A connection of one's own for a thread of one's own."""
        ...

    def load(self, work: Work[T]) -> T:
        """One transaction over a connection of its own, without limits of time; for large loads. Blocking."""
        ...

    async def details(self) -> dict[str, Any]:
        """What it tells of itself as JSON values: ``size_bytes``, ``server``, ``address`` without secrets."""
        ...

    async def close(self) -> None:
        """Finish what was handed in; idempotent."""
        ...


class Transactor(Protocol):
    """Blocking transactions over one connection, for one thread; it connects again after a fault."""

    def run(self, work: Work[T]) -> T:
        """One transaction; raises StoreError."""
        ...

    def close(self) -> None:
        """Let go; idempotent."""
        ...
