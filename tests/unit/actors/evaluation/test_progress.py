"""The progress line."""

from __future__ import annotations

from actors.evaluation.progress import Progress
from actors.evaluation.records import ItemRecord
from registries.contracts.runs import ErrorFact
from tests.unit.actors.evaluation.clocks import ManualClock


def test_the_line_tells_where_it_stands() -> None:
    clock = ManualClock()
    progress = Progress(clock.monotonic)
    progress.expect("flow:challenge", 10, 2)
    assert (
        progress.line()
        == "evaluation: 0/10 items (2 from an earlier run), flow:challenge 0 errors, 0.0 items/s"
    )
    clock.now = 2.0
    progress.add(ItemRecord(arm="flow:challenge", id="a", final_correct=True))
    progress.add(ItemRecord(arm="flow:challenge", id="b", final_correct=False))
    failed = ErrorFact(code="capacity", message="full")
    progress.add(ItemRecord(arm="flow:challenge", id="c", final_correct=False, error=failed))
    progress.add(ItemRecord(arm="flow:challenge", id="d", final_correct=True))
    assert progress.line() == (
        "evaluation: 4/10 items (2 from an earlier run), flow:challenge 50.0 % right, "
        "1 errors, 2.0 items/s, 3 s left"
    )
