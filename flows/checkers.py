"""Checks an answer against what is known to be right, without any model."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

Checker = Callable[[str], float]
"""Score of an answer: 1.0 right, 0.0 wrong."""

# A minus right after a digit is an operation, elsewhere it is a sign.
_NUMBER = re.compile(r"(?:(?<![\d.])[-−])?\d+(?:,\d{3})*(?:\.\d+)?")
_ARITHMETIC = re.compile(
    r"^\s*+(?:what\s+is|how\s+much\s+is|calculate|compute)?\s*+"
    r"(?P<a>\d{1,15})\s*+(?P<operation>[-+*×−]|plus|minus|times)\s*+(?P<b>\d{1,15})"
    r"\s*+(?:=\s*+\??|[?.])?\s*+$",
    re.IGNORECASE,
)
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    **dict.fromkeys(("+", "plus"), lambda a, b: a + b),
    **dict.fromkeys(("-", "−", "minus"), lambda a, b: a - b),
    **dict.fromkeys(("*", "×", "times"), lambda a, b: a * b),
}


def answer_checker(question: str, target: str | None = None) -> Checker | None:
    """The checker for a question: against the target where one is given, else by working it out.

    None when neither is possible. A target that is a number is compared with the last number of the
    answer, any other text with the whole answer (case, spaces and punctuation at the ends aside).
    """
    expected = target if target is not None and target.strip() else arithmetic_result(question)
    if expected is None:
        return None
    number = as_number(expected)
    if number is None:
        wanted = _plain(expected)
        return lambda answer: float(_plain(answer) == wanted)
    return lambda answer: float(last_number(answer) == number)


def arithmetic_result(question: str) -> str | None:
    """The result of a question that is one sum, difference or product of whole numbers; else None."""
    found = _ARITHMETIC.match(question)
    if not found:
        return None
    return str(_OPERATIONS[found["operation"].lower()](int(found["a"]), int(found["b"])))


def last_number(text: str) -> Decimal | None:
    """The last number of a text, 85 of "48 + 37 = 85."; None where there is none."""
    found = _NUMBER.findall(text)
    return as_number(found[-1]) if found else None


def as_number(text: str) -> Decimal | None:
    """The number that the whole text is, thousands separators allowed; else None."""
    plain = text.strip().replace("−", "-")
    if not re.fullmatch(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?", plain):
        return None
    try:
        return Decimal(plain.replace(",", ""))
    except InvalidOperation:
        return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!?\"'`")
