"""Reading query parameters: each known, each once, each of its kind."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from starlette.datastructures import QueryParams

from registries.contracts.errors import ValidationError

MAX_CHARS = 200
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def check_known(query: QueryParams, known: Sequence[str]) -> None:
    """Raises ValidationError for a parameter that the route does not have: a typo is no filter."""
    for name in query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValidationError(
                f"unknown parameter {name!r}.{hint} Allowed: {', '.join(known)}", param=name
            )


def one_value(query: QueryParams, name: str) -> str | None:
    """The parameter's text; None without it. Raises ValidationError when given twice, or too long."""
    values = query.getlist(name)
    if len(values) > 1:
        raise ValidationError(f"{name} is given {len(values)} times", param=name)
    if values and not 1 <= len(values[0]) <= MAX_CHARS:
        raise ValidationError(f"{name} must have 1 to {MAX_CHARS} characters", param=name)
    return values[0] if values else None


def flag(query: QueryParams, name: str, default: bool) -> bool:
    """true or false."""
    text = one_value(query, name)
    if text is None:
        return default
    if text.lower() not in _FLAGS:
        raise ValidationError(f"{name}: {text!r} is not allowed: true or false", param=name)
    return _FLAGS[text.lower()]
