"""Lists of parameters in few lengths: every text of SQL is kept, rendered and prepared, by who runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def next_power_of_two(count: int) -> int:
    """The smallest power of two that is not below ``count`` (at least 1)."""
    return 1 << max(0, count - 1).bit_length()


def padded_parts(values: Sequence[T], at_most: int) -> Iterator[list[T]]:
    """Portions of ``at_most`` (a power of two) whose last one is filled up by repeating its last value.

    For ``IN (…)``, where a value that is there twice changes nothing.
    """
    for start in range(0, len(values), at_most):
        part = list(values[start : start + at_most])
        yield part + part[-1:] * (next_power_of_two(len(part)) - len(part))


def marks(count: int) -> str:
    """``?, ?, …``"""
    return ", ".join("?" * count)
