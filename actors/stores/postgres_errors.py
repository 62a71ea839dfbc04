"""psycopg's errors become ours, once, here."""

from __future__ import annotations

import psycopg

from actors.stores.store_faults import FULL, UNREACHABLE, UNUSABLE, for_operator, refused_row, store_fault
from registries.contracts.errors import Conflict, StoreError, StoreFull

RETRY_AFTER_S = 1.0
_FULL = frozenset({"53100"})
_TRANSIENT = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: the same transaction may pass at the next try."""
_GONE = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
"""A standby that was a primary, shutdowns, a server that starts, an idle session that was ended."""
_DUPLICATE = (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation)


def client_error(error: Exception, shown: str) -> Exception:
    """What a fault of the database means, in words that a client may read; ``shown`` names the database.

    What is none of psycopg's, such as a work's own, stays as it is.
    """
    if not isinstance(error, psycopg.Error):
        return error
    if isinstance(error, _DUPLICATE):
        return refused_row(error)
    if error.sqlstate in _FULL:
        return store_fault(FULL, error, shown, StoreFull, RETRY_AFTER_S)
    sentence = UNREACHABLE if is_lost(error) else UNUSABLE
    return store_fault(sentence, error, shown, retry_after_s=RETRY_AFTER_S)


def our_error(error: Exception, shown: str) -> Exception:
    """The same in words for operators: which database, and what it said. libpq's texts hold no password."""
    ours = client_error(error, shown)
    return for_operator(ours) if ours is not error and isinstance(ours, StoreError | Conflict) else ours


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
