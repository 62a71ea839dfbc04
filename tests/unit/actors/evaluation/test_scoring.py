"""What a text answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.scoring import extract_answer, is_correct, is_numeric


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("85", "85"),
        ("48 + 37 = 85.", "85"),
        ("48+37=85", "85"),
        ("I get 85. Wrong.", "85"),
        ("It is -12", "-12"),
        ("100 - 120 = -20", "-20"),
        ("The total is $1,250.50 in all", "1250.5"),
        ("Answer: 7, because 3 + 4 is 7 and not 8", "8"),
        (r"so \boxed{42} and that took 3 steps", "42"),
        ("the answer is twelve. I mean 12", "12"),
        ("85.0", "85"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("version v2", ""),
        ("no number", ""),
        ("", ""),
    ],
)
def test_numbers(text: str, answer: str) -> None:
    assert extract_answer(text, numeric=True) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: The Nile.", "nile"),
        ("I think so.\nthe  NILE!\n", "nile"),
        ("The final answer is  Paris", "paris"),
        ("", ""),
    ],
)
def test_words(text: str, answer: str) -> None:
    assert extract_answer(text, numeric=False) == answer


@pytest.mark.parametrize(
    ("text", "targets", "right"),
    [
        ("48 + 37 = 85", ("85",), True),
        ("84", ("85",), False),
        ("", ("85",), False),
        ("anything", (), None),
        ("It is Anne", ("Ann", "it is anne"), True),
        ("1,000", ("1000.0",), True),
    ],
)
def test_right_and_wrong(text: str, targets: tuple[str, ...], right: bool | None) -> None:
    assert is_correct(text, targets) is right


@given(st.integers(-(10**12), 10**12))
def test_an_integer_is_found_however_it_is_said(number: int) -> None:
    for text in (f"{number}", f"It is {number:,}.", f"Answer: {number}", f"x = {number}.00"):
        assert is_correct(text, (str(number),))


@given(st.text(), st.booleans())
def test_any_text_has_an_answer_in_one_spelling(text: str, numeric: bool) -> None:
    answer = extract_answer(text, numeric)
    if numeric and answer:
        assert extract_answer(answer, numeric) == answer


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_numeric_targets_are_all_numbers(targets: list[str]) -> None:
    assert is_numeric(tuple(targets)) == all(is_numeric((target,)) for target in targets)


def test_huge_exponents_are_no_numbers() -> None:
    assert extract_answer("9e999999999", numeric=True) == ""
