"""A fault of the database in words: a plain sentence for clients, the driver's for operators and the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from registries.contracts.errors import Conflict, InternalError, ParleyError, StoreError, StoreFull

E = TypeVar("E", bound=StoreError | Conflict)
UNREACHABLE = "the database cannot be reached"
UNUSABLE = "the database cannot be used right now"
FULL = "the database is full"
AGAIN_S = 60.0
"""Between two lines of the log about the same fault."""


def store_fault(
    sentence: str,
    cause: BaseException,
    database: str,
    kind: type[StoreError] = StoreError,
    retry_after_s: float = 1.0,
) -> StoreError:
    """Its message is shown to clients; ``database`` (where it is) and the driver's words are context."""
    told = {"database": database, "fault": type(cause).__name__, "detail": first_line(cause)}
    fault = kind(sentence, retry_after_s=retry_after_s, context=told)
    fault.__cause__ = cause
    return fault


def refused_row(cause: BaseException) -> Conflict:
    """A unique or foreign key that was violated."""
    detail = {"detail": first_line(cause)}
    fault = Conflict("the database refused a duplicate or dangling row", context=detail)
    fault.__cause__ = cause
    return fault


def for_operator(error: E) -> E:
    """The same with where the database is and what its driver said; for commands, never for clients."""
    message, detail = error.message, error.context.get("detail")
    if "database" in error.context:
        what = "is full" if isinstance(error, StoreFull) else "cannot be used"
        message = f"the database {error.context['database']} {what}: {detail}"
    elif type(error) is Conflict and detail is not None:
        message = f"{message}: {detail}"
    told = type(error)(message, error.param, error.retry_after_s, error.context)
    told.__cause__ = error.__cause__
    return told


def broken_write(error: BaseException) -> ParleyError:
    """What a group of writes is told when its commit failed in no way that is foreseen; logged here."""
    if isinstance(error, ParleyError):
        return error
    structlog.get_logger("actors.stores").error("writing_failed", exc_info=error)
    return InternalError("an internal error happened during a commit, which may have been made")


def first_line(error: BaseException) -> str:
    """What comes behind it repeats values of rows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class FaultLog:
    """``database_fault``, once a minute for each kind of fault, however many requests meet it.

    One for each open database.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def tell(self, error: BaseException) -> None:
        """From any thread; says nothing of what is no ``store_fault``."""
        if not isinstance(error, StoreError) or "database" not in error.context:
            return
        kind = (error.context["database"], error.context["fault"])
        with self._lock:
            now = self._clock()
            if now - self._told_at.get(kind, now - AGAIN_S) < AGAIN_S:
                return
            self._told_at[kind] = now
        structlog.get_logger("actors.stores").warning("database_fault", error=error.message, **error.context)
