"""Doctor and the configured PostgreSQL."""

from __future__ import annotations

import socket

import pytest

from serve_app.doctor.database import database_problem
from serve_app.doctor.machine_checks import database_check


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_database_that_is_away_is_said_without_its_password(closed_port: int) -> None:
    problem = database_problem(f"postgresql://u:hush-hush@127.0.0.1:{closed_port}/runs")
    assert problem is not None and "hush" not in problem and str(closed_port) in problem
    check = database_check(problem)
    assert check.verdict == "missing" and "PARLEY_STORE_URL" in check.advice


def test_a_url_that_is_none_is_said(closed_port: int) -> None:
    problem = database_problem("postgresql://u:hush-hush@db/runs?schema=1;2")
    assert problem is not None and "schema" in problem and "hush" not in problem


def test_one_that_answers_is_fine(postgres_dsn: str) -> None:
    assert database_problem(postgres_dsn) is None
    assert database_check(None).verdict == "ok"
