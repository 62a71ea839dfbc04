"""Text of users and models cannot make a pattern of ours run away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from flows.asking import signals_in
from flows.checkers import answer_checker, last_number
from flows.judge import read_scores
from flows.nodes.analyze import requirements_of, task_type_of
from flows.nodes.validate import score_form
from flows.scope_notice import scope_notice
from tests.unit.flows.fakes import PACKAGE

N = 100_000
MODELS = PACKAGE.list_models()
SIGNALS = [PACKAGE.prompt("challenge", family).signals for family in ("nano", "gpt")]

PATTERNS: dict[str, Callable[[str], object]] = {
    "scope": lambda text: scope_notice(text, MODELS),
    "task type": task_type_of,
    "requirements": requirements_of,
    "checker": lambda text: answer_checker(text),
    "last number": last_number,
    "signals": lambda text: [signals_in(text, signals) for signals in SIGNALS],
    "scores": read_scores,
    "form": lambda text: score_form("", text, "arithmetic", False),
}
HOSTILE = (
    " " * N + "x",
    "\n" * N + "x",
    "48 + 37" + " " * N + "x",
    "48" + " " * N + "x",
    "what" + " " * N,
    "- " * N,
    "def " * N,
    "1," * N,
    "9" * N,
    "VERDICT:" * (N // 8),
    "SCORES: A=" + " " * N,
)


@pytest.mark.parametrize("name", PATTERNS)
def test_time_grows_with_length_only(name: str) -> None:
    started = time.process_time()
    for text in HOSTILE:
        PATTERNS[name](text)
    assert time.process_time() - started < 5, "a quadratic pattern takes minutes"
