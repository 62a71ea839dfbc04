"""What a benchmark found: rows with budget and verdict, one table for all, one JSON a question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

RESULTS = Path(__file__).parent / "results"
REASONS = Path(__file__).parent / "reasons.yaml"

Verdict = Literal["met", "missed", "reported"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``budget`` None is reported without a verdict; ``at_most`` says which side is good."""

    name: str
    measured: float
    unit: str
    budget: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the budget holds."""
        if self.budget is None:
            return "reported"
        good = self.measured <= self.budget if self.at_most else self.measured >= self.budget
        return "met" if good else "missed"

    @property
    def budget_text(self) -> str:
        """``≤ 1.5 ms``"""
        return (
            "–"
            if self.budget is None
            else f"{'≤' if self.at_most else '≥'} {figure(self.budget)} {self.unit}"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question. ``details`` are raw figures, ``profile`` where the time of a miss went."""

    question: str
    rows: tuple[Row, ...]
    details: dict[str, Any] = field(default_factory=dict)
    profile: list[str] | None = None

    @property
    def missed(self) -> bool:
        """Whether any row missed its budget."""
        return any(row.verdict == "missed" for row in self.rows)


def figure(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_reasons(path: Path = REASONS) -> dict[str, str]:
    """Row name to the reason of a miss, as somebody who looked at the profile wrote it down."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def table(findings: Iterable[Finding], reasons: dict[str, str]) -> list[str]:
    """Lines of the one table (Markdown); below it a reason and a profile for every budget that was missed."""
    rows = [row for finding in findings for row in finding.rows]
    lines = ["| what | budget | measured | verdict |", "| --- | ---: | ---: | --- |"]
    lines += [_line(row) for row in rows]
    for finding in findings:
        lines += _misses(finding, reasons)
    return lines


def _line(row: Row) -> str:
    note = f" ({row.note})" if row.note else ""
    return f"| {row.name}{note} | {row.budget_text} | {figure(row.measured)} {row.unit} | {row.verdict} |"


def _misses(finding: Finding, reasons: dict[str, str]) -> list[str]:
    lines: list[str] = []
    for row in finding.rows:
        if row.verdict == "missed":
            lines += ["", f"missed: {row.name}: {reasons.get(row.name, 'no reason was written down yet')}"]
    if lines and finding.profile:
        lines += ["  where the time went (py-spy, share of samples):", *(f"    {s}" for s in finding.profile)]
    return lines


def write_json(finding: Finding, machine: dict[str, Any], folder: Path = RESULTS) -> Path:
    """``results/<question>.json``: rows, raw figures, machine, versions and date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.question}.json"
    body = {
        "question": finding.question,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [{**asdict(row), "verdict": row.verdict} for row in finding.rows],
        "details": finding.details,
        "profile": finding.profile,
    }
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def rounded(values: Sequence[float], digits: int = 3) -> list[float]:
    """For JSON that people read."""
    return [round(value, digits) for value in values]
