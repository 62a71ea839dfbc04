"""From records to figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.records import ItemRecord
from actors.evaluation.report import render
from actors.evaluation.summary import accuracy, compare, summarise, summarise_arm
from registries.contracts.runs import ErrorFact

FAILED = ErrorFact(code="capacity", message="full")
flags = st.sampled_from([True, False, None])


def record(
    item: str,
    arm: str = "flow:f",
    first: bool | None = None,
    final: bool | None = None,
    error: ErrorFact | None = None,
    latency_s: float = 1.0,
) -> ItemRecord:
    return ItemRecord(
        arm=arm,
        id=item,
        first_correct=first,
        final_correct=final,
        error=error,
        latency_s=latency_s,
        prompt_tokens=10,
        cost_micro_usd=250_000,
        category="x" if item < "c" else None,
    )


def test_failed_items_are_wrong_and_not_measured() -> None:
    rows = [record("a", final=True), record("b", final=False, error=FAILED, latency_s=99)]
    arm = summarise_arm("flow:f", rows)
    assert (arm.items, arm.errors, arm.final.right, arm.final.scored) == (2, 1, 1, 2)
    assert (arm.latency_p95_s, arm.prompt_tokens, arm.cost_usd) == (1.0, 10, 0.5)
    assert arm.by_category["x"].scored == 2
    assert arm.change is None


def test_an_arm_without_records_has_no_figures() -> None:
    arm = summarise_arm("flow:f", [])
    assert (arm.items, arm.final.share, arm.latency_p50_s, arm.change) == (0, None, None, None)
    assert "| flow:f | 0 | 0 | – | – | – | – | – | – | – | $0.0000 |" in render(
        summarise({"flow:f": []}), "T", {}
    )


def test_comparisons_pair_what_both_answered() -> None:
    rows = {
        "model:m": [
            record("a", final=False),
            record("b", final=True),
            record("c", final=False, error=FAILED),
        ],
        "flow:f": [
            record("b", final=True),
            record("a", final=True),
            record("c", final=True),
            record("d", final=True),
        ],
    }
    compared = compare("model:m", "flow:f", rows)
    assert (compared.items, compared.gained, compared.lost, compared.p) == (2, 1, 0, 1.0)


def test_every_flow_meets_every_other_arm_once() -> None:
    names = ("flow:a", "flow:b", "model:m", "votes:m@3")
    summary = summarise({name: [record("a", name, final=True)] for name in names})
    met = {frozenset((c.before, c.after)) for c in summary.comparisons}
    assert len(summary.comparisons) == len(met) == 5
    assert frozenset(("model:m", "votes:m@3")) not in met


@given(st.lists(flags))
def test_accuracy_counts_what_is_scored(values: list[bool | None]) -> None:
    made = accuracy(values)
    assert made.right == values.count(True)
    assert made.scored == len(values) - values.count(None)
    assert made.share is None or made.low <= made.share <= made.high


@given(st.lists(st.tuples(flags, flags, st.booleans()), max_size=20))
def test_the_page_renders_whatever_happened(rows: list[tuple[bool | None, bool | None, bool]]) -> None:
    records = [
        record(str(i), first=first, final=final, error=FAILED if failed else None)
        for i, (first, final, failed) in enumerate(rows)
    ]
    summary = summarise({"flow:f": records, "model:m": records})
    page = render(summary, "Title", {"date": "today"})
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert page.startswith("# Title\n\n- date: today\n")
    assert all(line.endswith("|") for line in tables)
    change = summary.arms[0].change
    if change is not None:
        assert change.difference == (change.gained - change.lost) / change.items
