"""Rows, verdicts, the one table, the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.result import RESULTS, Finding, Row, figure, read_reasons, table, write_json

MET = Row("tokens", 0.96, "×", 0.95, at_most=False)
MISSED = Row("latency", 2.0, "ms", 1.5, note="raw 0.5 ms")
TOLD = Row("peer", 10.0, "ms")


def test_a_verdict_depends_on_the_side() -> None:
    assert [row.verdict for row in (MET, MISSED, TOLD)] == ["met", "missed", "reported"]
    assert [row.budget_text for row in (MET, MISSED, TOLD)] == ["≥ 0.95 ×", "≤ 1.5 ms", "–"]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_two_sides_agree_only_on_equality(measured: float, budget: float) -> None:
    below = Row("x", measured, "s", budget).verdict == "met"
    above = Row("x", measured, "s", budget, at_most=False).verdict == "met"
    assert (below and above) == (measured == budget)
    assert below or above


def test_a_miss_has_its_reason_and_profile_below_the_table() -> None:
    finding = Finding("gateway", (MET, MISSED, TOLD), profile=["50.0 % parse (json.py:1)"])
    lines = table([finding], {"latency": "JSON is parsed twice"})
    assert "| latency (raw 0.5 ms) | ≤ 1.5 ms | 2 ms | missed |" in lines
    assert "missed: latency: JSON is parsed twice" in lines
    assert lines[-1].strip() == "50.0 % parse (json.py:1)"
    assert table([Finding("good", (MET,), profile=["x"])], {})[-1].startswith("| tokens")
    assert "no reason was written down yet" in "\n".join(table([finding], {}))


def test_the_json_says_where_it_was_measured(tmp_path: Path) -> None:
    path = write_json(Finding("gateway", (MISSED,), {"rounds": [1]}), {"cpu": "x"}, tmp_path / "new")
    body = json.loads(path.read_text())
    assert (path.name, body["machine"], body["rows"][0]["verdict"]) == (
        "gateway.json",
        {"cpu": "x"},
        "missed",
    )
    assert body["details"] == {"rounds": [1]}


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (12.345, "12.3"), (1234.5, "1234"), (0.0, "0")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert figure(value) == text


def test_reasons_are_texts_of_known_rows(tmp_path: Path) -> None:
    assert read_reasons(tmp_path / "none.yaml") == {}
    committed = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    missed = {row["name"] for body in committed for row in body["rows"] if row["verdict"] == "missed"}
    reasons = read_reasons()
    assert all(isinstance(text, str) and text for text in reasons.values())
    assert missed <= set(reasons), "a committed miss needs its reason in benchmarks/reasons.yaml"
