"""Which faults are tried again: scripted ones, no server."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg.errors import AdminShutdown, DeadlockDetected, LockNotAvailable

from actors.stores.postgres_persistence import persist
from actors.stores.postgres_transaction import WorkFailed
from actors.stores.store_faults import UNREACHABLE, FaultLog
from registries.contracts.errors import StoreError


def failing(*causes: Exception | None) -> Callable[[], str]:
    """An attempt whose works raise these in turn; "done" where there is none."""
    left = list(causes)

    def attempt() -> str:
        cause = left.pop(0)
        if cause is None:
            return "done"
        raise WorkFailed(0) from cause

    return attempt


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_a_connection_that_is_lost_after_four_deadlocks_is_tried_again() -> None:
    deadlocks = [DeadlockDetected("deadlock") for _ in range(4)]
    assert persist(failing(*deadlocks, AdminShutdown("gone"), None), "here", FaultLog()) == "done"
    with pytest.raises(WorkFailed) as given_up:
        persist(failing(*deadlocks, AdminShutdown("gone"), DeadlockDetected("fifth")), "here", FaultLog())
    assert str(given_up.value.cause) == "fifth"


def test_a_connection_that_is_lost_twice_is_the_database_s_fault() -> None:
    with pytest.raises(StoreError, match=UNREACHABLE):
        persist(failing(AdminShutdown("gone"), psycopg.OperationalError("refused")), "here", FaultLog())


@pytest.mark.parametrize("cause", [KeyError("a work's own"), LockNotAvailable("locked")])
def test_all_else_is_tried_once(cause: Exception) -> None:
    with pytest.raises(WorkFailed) as failed:
        persist(failing(cause), "here", FaultLog())
    assert failed.value.cause is cause
