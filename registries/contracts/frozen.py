"""The one pydantic configuration of every contract."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable value object that refuses unknown fields, so that a typo is an error and not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def refuse_boolean(value: Any) -> Any:
    """For numeric fields, before pydantic reads ``true`` as 1; raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value
