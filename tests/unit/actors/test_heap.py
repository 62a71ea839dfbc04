"""The collector of a server process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from actors.heap import YOUNG_OBJECTS, settle_heap


class _Loop:
    """Refers to itself: only the collector frees it."""

    def __init__(self, freed: list[str]) -> None:
        self.itself = self
        self._freed = freed

    def __del__(self) -> None:
        self._freed.append("freed")


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_lives_is_left_alone_and_what_comes_later_is_still_collected() -> None:
    freed: list[str] = []
    settle_heap()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1_000
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    _Loop(freed)
    kept = [[number] for number in range(2 * YOUNG_OBJECTS)]
    assert freed == ["freed"]
    assert len(kept) == 2 * YOUNG_OBJECTS


def test_garbage_from_before_is_freed_and_not_kept_for_ever() -> None:
    freed: list[str] = []
    _Loop(freed)
    settle_heap()
    assert freed == ["freed"]
