"""An INSERT of one row, as a statement of many: it takes one round trip, and the interpreter's lock once."""

from __future__ import annotations

import re
from functools import lru_cache

_VALUES = re.compile(r"VALUES (\([^()]*\))")


@lru_cache(maxsize=512)
def of_many(sql: str, rows: int) -> str:
    """``sql`` with its values ``rows`` times; raises ValueError for what is not an INSERT of one row."""
    values = _VALUES.search(sql)
    if values is None:
        raise ValueError(f"not one row of an INSERT: {sql}")
    more = f", {values.group(1)}" * (rows - 1)
    return f"{sql[: values.end()]}{more}{sql[values.end() :]}"
