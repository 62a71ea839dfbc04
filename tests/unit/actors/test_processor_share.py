from __future__ import annotations

from collections.abc import Callable

from actors.processor_share import ProcessorShare


def replayed(*readings: float) -> Callable[[], float]:
    left = iter(readings)
    return lambda: next(left)


def test_it_is_the_share_since_the_last_reading() -> None:
    share = ProcessorShare(now=replayed(10.0, 12.0, 13.0), used=replayed(5.0, 6.0, 7.5))
    assert share.read() == 0.5
    assert share.read() == 1.5, "threads outside the interpreter's lock count too"


def test_no_time_is_no_share() -> None:
    assert ProcessorShare(now=replayed(1.0, 1.0), used=replayed(0.0, 0.1)).read() == 0.0


def test_a_process_that_works_is_busy() -> None:
    share = ProcessorShare()
    sum(number * number for number in range(200_000))
    assert share.read() > 0.0
