"""docs/durability.md names tests, settings and metrics that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from actors.telemetry.families import FAMILIES
from serve_app.variables import VARIABLES

TESTS = Path(__file__).resolve().parents[2]
PAGE = (TESTS.parent / "docs" / "durability.md").read_text(encoding="utf-8")
_NAMED = re.compile(r"`((?:unit|conformance|integration|chaos|e2e)/[\w/]+\.py)(?:::(\w+))?`")
NAMED = sorted({(match[1], match[2] or "") for match in _NAMED.finditer(PAGE)})


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its two first lines."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table[2:]


@cache
def collected_from(file: Path) -> frozenset[str]:
    """Functions that pytest collects from a file: at its top, or in a class of tests."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return frozenset(
        node.name
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_what_the_page_names_is_there(path: str, name: str) -> None:
    file = TESTS / path
    assert file.is_file()
    if name:
        assert file.name.startswith("test_") and name in collected_from(file)


def test_every_line_of_the_promise_is_shown_by_a_test() -> None:
    promise = rows("The promise")
    assert len(promise) >= 25
    for line, shown_by in promise:
        named = _NAMED.findall(shown_by)
        assert named and all(name for _, name in named), line
        assert _NAMED.sub("", shown_by).strip() == "", f"not understood: {shown_by}"


def test_no_fault_test_of_the_engine_is_left_out() -> None:
    named = {path for path, _ in NAMED}
    for file in TESTS.glob("chaos/test_engine_*.py"):
        assert str(file.relative_to(TESTS)) in named


def test_settings_have_the_defaults_that_the_page_tells() -> None:
    known = {variable.name: variable.default for variable in VARIABLES}
    told = {name.strip("`"): default for name, default, _ in rows("Settings")}
    for name, default in told.items():
        assert known[name] == (default.strip("`") if default.startswith("`") else ""), name
    for name in re.findall(r"\bPARLEY_[A-Z_]+", PAGE):
        assert name in known, name


def test_metrics_to_watch_are_measured() -> None:
    watched = {cells[1].strip("`") for cells in rows("Operating it") if "/metrics" in cells[0]}
    assert len(watched) >= 5
    assert watched <= FAMILIES.keys()
