"""Who is told what about a fault of the database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from actors.stores import postgres_errors, sqlite_connection
from actors.stores.store_faults import AGAIN_S, UNREACHABLE, FaultLog, broken_write, for_operator, store_fault
from registries.contracts.errors import Conflict, InternalError, LeaseLost, StoreError, StoreFull

WORDS = 'connection to server at "db.internal", port 5432 failed: no such user "ann"'


def full(error: sqlite3.Error) -> sqlite3.Error:
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (postgres_errors.client_error(psycopg.OperationalError(WORDS), "d at db.internal"), StoreError),
        (postgres_errors.client_error(psycopg.errors.DiskFull(WORDS), "d at db.internal"), StoreFull),
        (postgres_errors.client_error(psycopg.errors.UniqueViolation(WORDS), "d at db.internal"), Conflict),
        (sqlite_connection.client_error(sqlite3.OperationalError(WORDS), Path("/db.internal")), StoreError),
        (
            sqlite_connection.client_error(full(sqlite3.OperationalError(WORDS)), Path("/db.internal")),
            StoreFull,
        ),
        (sqlite_connection.client_error(OSError(WORDS), Path("/db.internal")), StoreError),
        (sqlite_connection.client_error(sqlite3.IntegrityError(WORDS), Path("/db.internal")), Conflict),
    ],
)
def test_a_client_hears_nothing_of_the_driver_and_an_operator_does(error: StoreError, kind: type) -> None:
    assert type(error) is kind and error.message.startswith("the database ")
    assert "internal" not in error.message and "user" not in error.message
    assert error.context["detail"] == WORDS and WORDS in str(error.__cause__)
    told = for_operator(error)
    assert type(told) is kind and WORDS in told.message and told.retry_after_s == error.retry_after_s
    assert for_operator(store_fault(UNREACHABLE, KeyError("k"), "/a place")).message.startswith(
        "the database /a place cannot be used"
    )


@pytest.mark.parametrize("error", [KeyError("k"), LeaseLost("taken over"), ValueError("v")])
def test_what_is_not_the_database_s_fault_stays_as_it_is(error: Exception) -> None:
    assert postgres_errors.client_error(error, "here") is postgres_errors.our_error(error, "here") is error


def test_the_log_hears_of_each_kind_once_a_minute() -> None:
    now = [5.0]
    log = FaultLog(lambda: now[0])
    refused = store_fault(UNREACHABLE, psycopg.OperationalError(WORDS), "here")
    other = store_fault(UNREACHABLE, psycopg.errors.AdminShutdown("ended"), "here")
    with capture_logs() as lines:
        for error in (refused, other, refused, StoreError("closed"), KeyError("k"), refused):
            log.tell(error)
        now[0] += AGAIN_S
        log.tell(refused)
    assert [(line["event"], line["detail"], line["database"]) for line in lines] == [
        ("database_fault", words, "here") for words in (WORDS, "ended", WORDS)
    ]


def test_a_commit_that_breaks_is_ours_and_its_reason_is_in_the_log_only() -> None:
    with capture_logs() as lines:
        assert broken_write(lost := LeaseLost("taken over")) is lost
        told = broken_write(TypeError("secret"))
    assert isinstance(told, InternalError) and "secret" not in told.message
    assert [line["event"] for line in lines] == ["writing_failed"] and lines[0]["exc_info"]
