"""Several writes, one commit: a commit is a disk's flush, whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from registries.contracts.errors import StoreError, StoreFull

W = TypeVar("W")


def commit_together(transact: Callable[[Sequence[W]], list[Any]], works: Sequence[W]) -> list[Any]:
    """Each write's answer, or the exception that refused it; answers are committed when this returns.

    ``transact`` does all works in one transaction and returns their answers, or undoes everything and raises.
    When one of several fails, each is tried in a transaction of its own: a bad write costs its neighbours
    time and nothing else. A database that is away (StoreError, but not StoreFull: less may still fit) refuses
    all at once; trying each would multiply the wait, and a commit whose answer was lost must not be repeated.
    """
    if len(works) > 1:
        try:
            return transact(works)
        except StoreError as error:
            if not isinstance(error, StoreFull):
                return [error] * len(works)
        except Exception:  # noqa: BLE001 - told below, to the one whose it is
            pass
    return [_alone(transact, work) for work in works]


def _alone(transact: Callable[[Sequence[W]], list[Any]], work: W) -> Any:
    try:
        return transact([work])[0]
    except Exception as error:  # noqa: BLE001 - handed to the caller of this write
        return error
