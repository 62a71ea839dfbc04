"""Which faults of a transaction on PostgreSQL are tried again, and how often."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from actors.stores.postgres_errors import client_error, is_lost, is_transient
from actors.stores.postgres_transaction import WorkFailed
from actors.stores.store_faults import FaultLog
from registries.contracts.errors import StoreError

T = TypeVar("T")
_TRIES = 5
_PAUSE_S = 0.02


def persist(attempt: Callable[[], T], shown: str, faults: FaultLog) -> T:
    """One transaction's outcome.

    Deadlocks and serialisation failures are tried again a few times; a connection that is lost before the
    commit was sent, once: a pool may hold one that died unnoticed. After the commit was sent nothing is.
    Raises WorkFailed where a work is at fault (or stays in the way of others), StoreError where the database
    is; ``faults`` hears of what is the database's. Blocking.
    """
    reconnected = False
    number = 0
    while True:
        failed: WorkFailed | None = None
        cause: Exception
        try:
            return attempt()
        except WorkFailed as error:
            failed, cause = error, error.cause
        except psycopg.Error as error:
            cause = error
        except StoreError as error:
            faults.tell(error)
            raise
        if is_lost(cause) and not reconnected:
            reconnected = True
            continue
        number += 1
        if not is_transient(cause) or number == _TRIES:
            fault = client_error(cause, shown)
            faults.tell(fault)
            if failed is not None and not is_lost(cause):
                raise failed
            raise fault from cause
        time.sleep(random.uniform(0.5, 1.0) * _PAUSE_S * number)
