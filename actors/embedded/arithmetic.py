"""Arithmetic questions, their wording, and the texts of the embedded models' four skills.

Pure: no torch, no I/O; every random choice comes from the caller's ``random.Random``.
The prompt texts here are those of the ``nano`` prompt variants, which the models were trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Category = Literal["add", "subtract", "multiply"]

SYMBOLS: dict[Category, str] = {"add": "+", "subtract": "-", "multiply": "*"}
_WORDS: dict[Category, str] = {"add": "plus", "subtract": "minus", "multiply": "times"}

# The first is the one that held-out questions use; the others are what people type instead.
PHRASINGS = (
    "What is {a} {symbol} {b}?",
    "Calculate {a} {symbol} {b}.",
    "{a} {symbol} {b} = ?",
    "How much is {a} {word} {b}?",
    "What is {a} {word} {b}?",
    "{a} {symbol} {b}",
    "What is {a}{symbol}{b}?",
)

# Digits of the two operands of a sum or difference, with their shares in percent.
_OPERAND_DIGITS = ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3))
_OPERAND_SHARES = (3, 4, 5, 42, 8, 10, 28)
_CATEGORY_SHARES = (33, 35, 32)
_NEGATIVE_SHARE = 0.12
_ONE_DIGIT_PRODUCT_SHARE = 0.08
# The 900 products of two digits by one could be learnt by heart; these many more cannot.
_LONG_PRODUCT_SHARE = 0.45
_SWAPPED_PRODUCT_SHARE = 0.15
_FINAL_NUMBER = re.compile(r"(-?\d+)\D*$")


@dataclass(frozen=True, slots=True)
class Question:
    """``a`` and ``b`` joined by one operation; operands are non-negative, the result may be negative."""

    category: Category
    a: int
    b: int

    @property
    def result(self) -> int:
        """The right answer."""
        if self.category == "add":
            return self.a + self.b
        return self.a - self.b if self.category == "subtract" else self.a * self.b

    @property
    def key(self) -> tuple[Category, int, int]:
        """Identity up to the order of operands: whoever knows ``b + a`` has seen ``a + b``."""
        return (self.category, min(self.a, self.b), max(self.a, self.b))

    def text(self, phrasing: str = PHRASINGS[0]) -> str:
        """The question in words, e.g. ``What is 48 + 37?``."""
        symbol, word = SYMBOLS[self.category], _WORDS[self.category]
        return phrasing.format(a=self.a, b=self.b, symbol=symbol, word=word)

    def answer(self, result: int | None = None) -> str:
        """The solver's text, e.g. ``48 + 37 = 85``; or the given ``result`` in place of 85."""
        shown = self.result if result is None else result
        return f"{self.a} {SYMBOLS[self.category]} {self.b} = {shown}"


def criticise_prompt(question: str, answer: str) -> str:
    """What a challenger is asked."""
    return f"Question: {question} Answer: {answer} Check it."


def repair_prompt(question: str, answer: str, critique: str) -> str:
    """What a refiner is asked."""
    return f"Question: {question} Answer: {answer} Critique: {critique} Fix it."


def merge_prompt(question: str, answers: Sequence[str]) -> str:
    """What a merger of several answers is asked."""
    return f"Question: {question} Answers: {' | '.join(answers)} Merge them."


def critique_text(own_result: int, answered: int) -> str:
    """A critique states its own result first: a bare verdict is not learnt by models of this size."""
    return f"I get {own_result}. {'Right' if own_result == answered else 'Wrong'}."


def final_number(text: str) -> int | None:
    """The last number of a text, e.g. 85 of ``48 + 37 = 85``; None where there is none."""
    found = _FINAL_NUMBER.search(text)
    return int(found.group(1)) if found else None


def random_question(rng: Random) -> Question:
    """One question for training, any category; some products have an operand of three digits."""
    (category,) = rng.choices(tuple(SYMBOLS), _CATEGORY_SHARES)
    if category == "multiply" and rng.random() < _LONG_PRODUCT_SHARE:
        return Question(category, _random_number(3, rng), rng.randrange(10))
    return random_question_of(category, rng)


def random_question_of(category: Category, rng: Random) -> Question:
    """Sums and differences of up to three digits, products of two digits by one (sometimes swapped)."""
    if category == "multiply":
        return _random_product(rng)
    (digits,) = rng.choices(_OPERAND_DIGITS, _OPERAND_SHARES)
    a, b = (_random_number(count, rng) for count in digits)
    if category == "subtract" and a < b and rng.random() >= _NEGATIVE_SHARE:
        a, b = b, a
    return Question(category, a, b)


def random_phrasing(rng: Random, plain_share: float) -> str:
    """The usual wording with probability ``plain_share``, else one of the others."""
    return PHRASINGS[0] if rng.random() < plain_share else rng.choice(PHRASINGS[1:])


def mistaken_result(question: Question, rng: Random) -> int:
    """A wrong result of the kinds that small models give: a digit off, a lost carry, digits swapped."""
    truth = question.result
    while True:
        wrong = _distorted(truth, rng)
        if wrong != truth:
            return wrong


def _random_product(rng: Random) -> Question:
    if rng.random() < _ONE_DIGIT_PRODUCT_SHARE:
        return Question("multiply", rng.randrange(10), rng.randrange(10))
    a, b = _random_number(2, rng), rng.randrange(10)
    swapped = rng.random() < _SWAPPED_PRODUCT_SHARE
    return Question("multiply", b, a) if swapped else Question("multiply", a, b)


def _random_number(digits: int, rng: Random) -> int:
    low = 0 if digits == 1 else 10 ** (digits - 1)
    return rng.randrange(low, 10**digits)


def _distorted(truth: int, rng: Random) -> int:
    kind = rng.random()
    if kind < 0.35:
        return truth + rng.choice((-1, 1)) * rng.choice((1, 1, 1, 2, 2, 3, 4, 5))
    if kind < 0.65:
        return truth + rng.choice((-1, 1)) * rng.choice((10, 10, 10, 20, 30, 100))
    if kind < 0.70:
        return -truth
    digits = list(str(abs(truth)))
    if kind < 0.80:
        rng.shuffle(digits)
    else:
        digits[rng.randrange(len(digits))] = rng.choice("0123456789")
    sign = -1 if truth < 0 else 1
    return sign * int("".join(digits))
