"""The tables that every backend has, and their keys, read off the schema's own statements."""

from __future__ import annotations

import re
from dataclasses import dataclass

from actors.stores.schema import MIGRATIONS, Migrations

_CREATE = re.compile(r"CREATE TABLE (\w+) \((.*)\)[^)]*$", re.DOTALL)
_TABLE_KEY = re.compile(r"PRIMARY KEY \(([^)]*)\)")
_COLUMN_KEY = re.compile(r"(\w+) [^,]*?PRIMARY KEY")
_DROP = re.compile(r"DROP TABLE (\w+)")
_RENAME = re.compile(r"ALTER TABLE (\w+) RENAME TO (\w+)")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """A table and the columns of its primary key."""

    name: str
    key: tuple[str, ...]


def common_tables() -> tuple[TableLayout, ...]:
    """In the order of their making: what is referred to stands before what refers to it.

    PostgreSQL's schema is the common one; what SQLite has besides belongs to one machine.
    """
    return tuple(
        TableLayout(name, _key(columns)) for name, columns in _tables(MIGRATIONS["postgresql"]).items()
    )


def table_names(migrations: Migrations) -> tuple[str, ...]:
    """All tables that these migrations leave behind, in the order of their making."""
    return tuple(_tables(migrations))


def _tables(migrations: Migrations) -> dict[str, str]:
    """Name → what stands between the brackets."""
    found: dict[str, str] = {}
    for version in sorted(migrations):
        for statement in migrations[version]:
            if made := _CREATE.match(statement):
                found[made[1]] = made[2]
            elif dropped := _DROP.match(statement):
                del found[dropped[1]]
            elif renamed := _RENAME.match(statement):
                found[renamed[2]] = found.pop(renamed[1])
    return found


def _key(columns: str) -> tuple[str, ...]:
    if several := _TABLE_KEY.search(columns):
        return tuple(name.strip() for name in several[1].split(","))
    one = _COLUMN_KEY.search(columns)
    if one is None:
        raise ValueError(f"a table without a primary key cannot be read in portions: {columns[:100]}")
    return (one[1],)
