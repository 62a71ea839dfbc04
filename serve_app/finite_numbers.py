"""Refuses numbers that JSON has no word for; Python's parsers, and pydantic's, take them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic

from registries.contracts.errors import ValidationError

_LARGEST = sys.float_info.max


def refuse_infinite(body: pydantic.BaseModel) -> None:
    """Raises ValidationError naming the first number that no double holds: NaN, an infinity, ``1e999``.

    Stored with a run's state, one would make every later answer that shows it fail. What was read is looked
    through, and not what was sent: a search through the bytes takes 50 ms a megabyte, all on the event loop.
    """
    for field in _infinite(body, ()):
        name = ".".join(field) or "body"
        raise ValidationError(f"field {name!r}: numbers must be finite", param=name)


def _infinite(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    inside: Iterable[tuple[Any, Any]]
    if value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        # Also false for NaN.
        if not -_LARGEST <= value <= _LARGEST:
            yield place
        return
    if isinstance(value, pydantic.BaseModel):
        inside = value
    elif isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    else:
        return
    for name, inner in inside:
        yield from _infinite(inner, (*place, str(name)))
