"""The question of a command: an argument, an option, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from registries.contracts.errors import ValidationError
from registries.contracts.generation import MAX_PROMPT_CHARS


def question_from(
    argument: str | None, option: str | None, stdin: TextIO, fallback: str | None = None
) -> str:
    """The question; raises ValidationError when it is missing, given twice, or no text."""
    if argument is not None and option is not None:
        raise ValidationError("the question is given twice: as an argument and as --prompt", param="prompt")
    given = argument if argument is not None else option
    if given == "-":
        given = _read(stdin)
    if given is None:
        given = fallback
    if given is None or not given.strip():
        raise ValidationError(
            'no question. Allowed: parley … "your question", --prompt TEXT, or - for standard input',
            param="prompt",
        )
    if any(0xD800 <= ord(sign) <= 0xDFFF for sign in given):
        raise ValidationError("the question is not valid UTF-8", param="prompt")
    return given


def _read(stdin: TextIO) -> str:
    try:
        # One more than allowed, so that a longer input is refused and not cut.
        return stdin.read(MAX_PROMPT_CHARS + 1)
    except UnicodeDecodeError:
        raise ValidationError("standard input is not valid UTF-8", param="prompt") from None


def text_or_file(value: str, param: str) -> str:
    """The text itself, or what is in the file that ``@FILE`` names; raises ValidationError with its name."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise ValidationError(f"{value[1:]!r} cannot be read: {error.strerror}", param=param) from None
    except UnicodeDecodeError:
        raise ValidationError(f"{value[1:]!r} is not valid UTF-8", param=param) from None
