"""What a text answers, and whether that is right; pure."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

# A decimal point needs digits behind it, so that the full stop of a sentence is not part of its number.
_NUMBER = re.compile(r"(?<![\w.])[-−+]?\$?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_MARKER = re.compile(r"(?:final\s+)?answer\s*(?:is|:)\s*(.+)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def extract_answer(text: str, numeric: bool) -> str:
    """The short answer inside a text, in one spelling, so that equal answers are equal strings.

    ``numeric``: the last number; "" where there is none. Otherwise what follows the last "answer:" or
    "answer is", else the last line that is not empty; case, punctuation and articles do not count.
    """
    marked = _marked(text)
    if numeric:
        return _last_number(marked) or _last_number(text)
    return _plain(marked or _last_line(text))


def is_numeric(targets: tuple[str, ...]) -> bool:
    """Whether every right answer is a number."""
    return bool(targets) and all(_canonical_number(target) is not None for target in targets)


def is_correct(text: str, targets: tuple[str, ...]) -> bool | None:
    """Whether the text's answer is one of the targets; None without a target."""
    if not targets:
        return None
    numeric = is_numeric(targets)
    answer = extract_answer(text, numeric)
    return bool(answer) and answer in {extract_answer(target, numeric) for target in targets}


def _marked(text: str) -> str:
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1])
    marked = _MARKER.findall(text)
    return str(marked[-1]) if marked else ""


def _last_number(text: str) -> str:
    found = [number for token in _NUMBER.findall(text) if (number := _canonical_number(token)) is not None]
    return found[-1] if found else ""


def _canonical_number(token: str) -> str | None:
    """ "1,250.50" and "+1250.5" are the same number."""
    bare = token.strip().replace(",", "").replace("$", "").replace("−", "-").rstrip(".%")
    try:
        number = Decimal(bare)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > 300:
        return None
    plain = format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in {"-0", "0", ""} else plain


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _ARTICLES.sub(" ", re.sub(r"[^\w\s.+-]", " ", folded))
    return " ".join(words.split()).strip(" .")
