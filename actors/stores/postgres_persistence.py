"""Which faults of a transaction on PostgreSQL are tried again, and how often."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from actors.stores.postgres_errors import is_lost, is_transient, our_error
from actors.stores.postgres_transaction import WorkFailed

T = TypeVar("T")
_TRIES = 5
_PAUSE_S = 0.02


def persist(attempt: Callable[[], T], shown: str) -> T:
    """One transaction's outcome.

    Deadlocks and serialisation failures are tried again a few times; a connection that is lost before the
    commit was sent, once: a pool may hold one that died unnoticed. After the commit was sent nothing is.
    Raises WorkFailed where a work is at fault (or stays in the way of others), StoreError where the database
    is. Blocking.
    """
    reconnected = False
    for number in range(1, _TRIES + 1):
        failed: WorkFailed | None = None
        cause: BaseException
        try:
            return attempt()
        except WorkFailed as error:
            failed, cause = error, error.__cause__ or error
        except psycopg.Error as error:
            cause = error
        if is_lost(cause):
            if reconnected:
                raise our_error(cause, shown) from cause
            reconnected = True
        elif not is_transient(cause) or number == _TRIES:
            raise failed or our_error(cause, shown)
        else:
            time.sleep(random.uniform(0.5, 1.0) * _PAUSE_S * number)
    raise AssertionError("unreachable: the last try returns or raises")
