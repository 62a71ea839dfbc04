"""psycopg's errors become ours, once, here."""

from __future__ import annotations

import psycopg

from registries.contracts.errors import Conflict, ParleyError, StoreError, StoreFull

RETRY_AFTER_S = 1.0
_FULL = frozenset({"53100"})
_TRANSIENT = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: the same transaction may pass at the next try."""
_GONE = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
"""A standby that was a primary, shutdowns, a server that starts, an idle session that was ended."""
_DUPLICATE = (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation)


def our_error(error: BaseException, shown: str) -> ParleyError:
    """What a fault of the database means. ``shown`` names the database; libpq's texts hold no password."""
    if isinstance(error, ParleyError):
        return error
    if isinstance(error, _DUPLICATE):
        return Conflict(f"the database refused a duplicate or dangling row: {_first_line(error)}")
    if isinstance(error, psycopg.Error) and error.sqlstate in _FULL:
        return StoreFull(f"the database {shown} is full: {_first_line(error)}", retry_after_s=RETRY_AFTER_S)
    return StoreError(
        f"the database {shown} cannot be used: {_first_line(error)}", retry_after_s=RETRY_AFTER_S
    )


def is_transient(error: BaseException | None) -> bool:
    """Whether the same transaction may simply be tried again."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _TRANSIENT


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection is of no use any more."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _GONE or state.startswith("08")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
