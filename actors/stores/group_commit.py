"""Several writes, one commit: a commit is a disk's flush, whoever waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

Work = Callable[[sqlite3.Connection], Any]


def commit_together(connection: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    """Each write's answer, or the exception that refused it; answers are committed when this returns.

    When one of several fails, everything is undone and each is tried in a transaction of its own: a bad
    write costs its neighbours time and nothing else.
    """
    if len(works) > 1:
        try:
            return _transaction(connection, works)
        except Exception:  # noqa: BLE001 - told below, to the one whose it is
            pass
    outcomes: list[Any] = []
    for work in works:
        try:
            outcomes.extend(_transaction(connection, [work]))
        except Exception as error:  # noqa: BLE001 - handed to the caller of this write
            outcomes.append(error)
    return outcomes


def _transaction(connection: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        answers = [work(connection) for work in works]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers
