"""From pydantic's list of complaints to one sentence that names field, value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from registries.contracts.errors import ValidationError

_SHOWN_PROBLEMS = 5
_SHOWN_VALUE_CHARS = 80


def describe_bad_input(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> ValidationError:
    """One ValidationError; ``param`` is the first field at fault."""
    problems = error.errors(include_url=False, include_context=True)
    told = [_sentence(problem, model) for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        told.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    return ValidationError("; ".join(told), param=_field(problems[0]["loc"]) or "body")


def _sentence(problem: Mapping[str, Any], model: type[pydantic.BaseModel]) -> str:
    field, kind = _field(problem["loc"]), problem["type"]
    if kind == "json_invalid":
        return f"the body is not valid JSON: {problem['ctx']['error']}"
    if kind == "model_type" and not field:
        return f"the body must be a JSON object, got {_shown(problem['input'])}"
    if kind == "extra_forbidden":
        return _unknown_field(field, problem["loc"], model)
    if kind == "missing":
        return f"field {field!r} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not field:
        return message
    rule = message[0].lower() + message[1:]
    return f"field {field!r}: {_shown(problem['input'])} is not allowed: {rule}"


def _unknown_field(field: str, loc: Sequence[int | str], model: type[pydantic.BaseModel]) -> str:
    if len(loc) > 1:
        return f"unknown field {field!r}"
    allowed = sorted(model.model_fields)
    near = difflib.get_close_matches(field, allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown field {field!r}.{hint} Allowed: {', '.join(allowed)}"


def _field(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE_CHARS else text[: _SHOWN_VALUE_CHARS - 1] + "…"
