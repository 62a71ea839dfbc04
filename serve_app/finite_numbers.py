"""Refuses numbers that JSON has no word for; Python's parsers, and pydantic's, take them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from registries.contracts.errors import ValidationError

_SUSPECT = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{309}")
"""What any such number has in it; texts may have it too. 1e308 is about the largest double."""


def refuse_infinite(raw: bytes) -> None:
    """Raises ValidationError naming the first NaN or infinity of a valid JSON body, ``1e999`` among them.

    Stored with a run's state, one would make every later answer that shows it fail. A body without a
    suspicious sign costs one look through its bytes.
    """
    if not _SUSPECT.search(raw):
        return
    # As a float: an integer of that length is none either, and Python refuses to read one of 4,301 digits.
    for field in _infinite(json.loads(raw, parse_int=float), ()):
        name = ".".join(field) or "body"
        raise ValidationError(f"field {name!r}: numbers must be finite", param=name)


def _infinite(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _infinite(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _infinite(inner, (*place, str(number)))
