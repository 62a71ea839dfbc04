"""What `parley doctor` says of the configured Redis."""

from __future__ import annotations

import socket

import pytest

from serve_app.doctor import machine_checks
from serve_app.doctor.redis_server import MIN_VERSION, hot_tier_problem, shown


def test_a_redis_that_answers_is_fine(redis_url: str) -> None:
    assert hot_tier_problem(redis_url) is None
    check = machine_checks.hot_tier_check(None, shown(redis_url))
    assert check.verdict == "ok"


def test_an_old_one_is_named_with_its_version(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.doctor.redis_server.MIN_VERSION", (MIN_VERSION[0] + 90, 0))
    problem = hot_tier_problem(redis_url)
    assert problem is not None and "is Redis " in problem


def test_one_that_is_away_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    problem = hot_tier_problem(f"redis://me:top-secret@127.0.0.1:{port}/0")
    assert problem is not None and f"127.0.0.1:{port}" in problem
    assert "secret" not in problem
    check = machine_checks.hot_tier_check(problem, "x")
    assert check.verdict == "note" and "secret" not in str(check)


def test_one_that_accepts_and_says_nothing_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.doctor.redis_server.ASK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        problem = hot_tier_problem(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
    assert problem is not None and "TimeoutError" in problem


def test_a_wrong_url_is_refused_in_words() -> None:
    problem = hot_tier_problem("redis://host:port/zero")
    assert problem is not None and "redis_url" in problem
    assert shown("unix:///run/redis.sock") == "/run/redis.sock"
