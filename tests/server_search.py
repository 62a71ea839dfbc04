"""Where a real server for the tests is: named by a variable, on its usual port, or started by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

NOT_TESTED = "NOT TESTED"
UNTESTED_VARIABLE = "PARLEY_UNTESTED"
"""Names the file in which all suites of a run tell what they could not test."""
"""What the reason of such a skip begins with; the end of the run repeats it."""


def find_server(
    variable: str,
    environment: Mapping[str, str],
    usual: Iterable[str],
    answers: Callable[[str], bool],
    start: Callable[[], str | None],
) -> str | None:
    """The URL of the first that answers; None when there is none and none can be started.

    Raises RuntimeError when the variable names one that does not answer: whoever set it wants that one.
    """
    given = environment.get(variable, "").strip()
    if given:
        if not answers(given):
            raise RuntimeError(f"{variable} is set, but the server that it names does not answer")
        return given
    for url in usual:
        if answers(url):
            return url
    return start()


def not_tested(name: str, variable: str, programs: str) -> str:
    """The reason of a skip, for the terminal's last lines."""
    return f"{NOT_TESTED}: {name}. Set {variable}, start one on its usual port, or install {programs}"
