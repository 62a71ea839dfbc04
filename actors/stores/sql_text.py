"""The words of a dialect, put into SQL that is written once for all databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_WORD = re.compile(r"\{(\w+)\}|\?")


class SqlDialect:
    """Renders each SQL string once and keeps it: the texts are constants of the code, a few hundred at most.

    ``words`` maps a word in braces to its text; an unknown one is a bug and raises KeyError. ``placeholder``
    stands for ``?``.
    """

    def __init__(self, words: Mapping[str, str], placeholder: str) -> None:
        self._words = dict(words)
        self._placeholder = placeholder
        self._rendered: dict[str, str] = {}

    def render(self, sql: str) -> str:
        """The text for the driver."""
        rendered = self._rendered.get(sql)
        if rendered is None:
            rendered = self._rendered[sql] = _WORD.sub(self._replace, sql)
        return rendered

    def _replace(self, match: re.Match[str]) -> str:
        word = match.group(1)
        return self._placeholder if word is None else self._words[word]


class ClockParameters:
    """For a database without clocks of ours: ``{now}`` and ``{lease_now}`` become parameters.

    A function that the database calls back would do as well, but takes the interpreter's lock in the middle
    of a statement, while every other writer waits for this transaction.
    """

    def __init__(self, dialect: SqlDialect) -> None:
        self._dialect = dialect
        self._recipes: dict[str, tuple[str, tuple[str | None, ...] | None]] = {}

    def bind(
        self, sql: str, parameters: tuple[object, ...], clocks: Mapping[str, Callable[[], float]]
    ) -> tuple[str, tuple[object, ...]]:
        """The text and its parameters, readings of ``clocks`` (by word) among them."""
        recipe = self._recipes.get(sql)
        if recipe is None:
            recipe = self._recipes[sql] = self._recipe(sql, clocks)
        text, slots = recipe
        if slots is None:
            return text, parameters
        given = iter(parameters)
        return text, tuple(next(given) if slot is None else clocks[slot]() for slot in slots)

    def _recipe(
        self, sql: str, clocks: Mapping[str, Callable[[], float]]
    ) -> tuple[str, tuple[str | None, ...] | None]:
        slots: list[str | None] = []
        for match in _WORD.finditer(sql):
            word = match.group(1)
            if word is None or word in clocks:
                slots.append(word)
        text = self._dialect.render(sql)
        return text, tuple(slots) if any(slots) else None
