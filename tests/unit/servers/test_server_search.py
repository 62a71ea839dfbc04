"""Where the tests look for real servers, and that they say so when there is none."""

from __future__ import annotations

import pytest

from tests.server_search import UNTESTED_VARIABLE, find_server, not_tested

pytest_plugins = ("pytester",)


def find(given: str | None, usual: tuple[str, ...], alive: set[str], started: str | None) -> str | None:
    environment = {} if given is None else {"DSN": given}
    return find_server("DSN", environment, usual, lambda url: url in alive, lambda: started)


def test_a_named_server_comes_first() -> None:
    assert find("named", ("usual",), {"named", "usual"}, "own") == "named"


def test_then_the_usual_ports_in_order() -> None:
    assert find(None, ("a", "b", "c"), {"b", "c"}, "own") == "b"
    assert find(" ", ("a",), {"a"}, "own") == "a"


def test_then_one_is_started() -> None:
    assert find(None, ("a", "b"), set(), "own") == "own"
    assert find(None, (), set(), None) is None


def test_a_named_server_that_does_not_answer_is_no_reason_to_take_another() -> None:
    with pytest.raises(RuntimeError, match="DSN is set"):
        find("named", ("usual",), {"usual"}, "own")


def test_nothing_is_started_while_one_answers() -> None:
    def start() -> str:
        raise AssertionError("started for nothing")

    assert find_server("DSN", {}, ["usual"], lambda url: True, start) == "usual"


def test_what_was_not_tested_stands_at_the_end_of_the_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNTESTED_VARIABLE, "untested.txt")
    pytester.makeconftest("from tests.conftest import pytest_terminal_summary")
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        f"def server(): pytest.skip({not_tested('Redis', 'REDIS_URL', 'redis-server')!r})\n"
        "def test_one(server): ...\n"
        "def test_two(server): ...\n"
        "def test_other(): pytest.skip('for another reason')\n"
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["!!! NOT TESTED: Redis. Set REDIS_URL*(2 tests skipped, in test_what*.py)"])
    assert "(2 tests skipped" in (pytester.path / "untested.txt").read_text()
    assert "for another reason (" not in result.stdout.str()
