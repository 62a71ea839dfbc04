"""Answers are checked against what is known, without a model."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.checkers import answer_checker, arithmetic_result, as_number, last_number

operands = st.integers(0, 10**15 - 1)
no_digits = st.text(st.characters(exclude_categories=["Nd"], exclude_characters="-−.,"), max_size=30)
OPERATIONS = {"+": "plus", "-": "minus", "*": "times"}


@given(operands, st.sampled_from("+-*"), operands, st.booleans(), st.sampled_from(["?", "", " = ?", "."]))
def test_arithmetic_is_worked_out(a: int, symbol: str, b: int, in_words: bool, end: str) -> None:
    shown = OPERATIONS[symbol] if in_words else symbol
    expected = {"+": a + b, "-": a - b, "*": a * b}[symbol]
    question = f"What is {a} {shown} {b}{end}"
    assert arithmetic_result(question) == str(expected)
    check = answer_checker(question)
    assert check is not None
    assert check(f"{a} {symbol} {b} = {expected}") == 1.0
    assert check(f"{a} {symbol} {b} = {expected + 1}") == 0.0
    assert check("I do not know") == 0.0


@given(no_digits, st.integers(-(10**9), 10**9), no_digits)
def test_the_last_number_is_found_in_any_words(before: str, number: int, after: str) -> None:
    assert last_number(f"{before} 17 {number} {after}") == Decimal(number)


@given(st.text())
def test_no_text_breaks_a_checker(text: str) -> None:
    last_number(text)
    as_number(text)
    arithmetic_result(text)
    for target in (None, "85", text):
        check = answer_checker(text, target)
        assert check is None or check(text) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48 + 37 = 85.", "85"),
        ("50 - 62 = -12", "-12"),
        ("5-3", "3"),
        ("about −4 °C", "-4"),
        ("1,234,567.50 dollars", "1234567.50"),
        ("v1.2", "1.2"),
        ("x-9", "-9"),
    ],
)
def test_numbers_as_people_write_them(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "question", ["", "What is love?", "What is 1 + 2 + 3?", "4 / 2", "Is 2 + 2 = 4?", "2 + 2 = 5", "x + 1"]
)
def test_other_questions_have_no_checker(question: str) -> None:
    assert answer_checker(question) is None


@pytest.mark.parametrize(
    ("target", "answer", "score"),
    [
        ("85", "It is 85!", 1.0),
        ("85", "85 or 86", 0.0),
        ("0.50", "one half, .5 or 0.5", 1.0),
        ("Paris", " paris. ", 1.0),
        ("Paris", "It is Paris", 0.0),
        ("New  York", "new york", 1.0),
    ],
)
def test_a_target_is_compared_as_number_or_as_text(target: str, answer: str, score: float) -> None:
    check = answer_checker("anything", target)
    assert check is not None
    assert check(answer) == score


def test_a_blank_target_is_none() -> None:
    assert answer_checker("anything", "  ") is None
