"""Events of runs on their way to readers in other processes: quick, and without any promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from registries.contracts.runs import RunEvent


class LiveEvents(Protocol):
    """Carries what the database does not: tokens, and durable events without being asked for them.

    It may lose anything. Whoever needs every durable event compares their seqs (gapless) and asks the store
    for what is missing, also from time to time when nothing comes.
    """

    @property
    def is_live(self) -> bool:
        """Whether events can come by this way now; False: ask the store as often as without it."""
        ...

    def publish(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Show events of a run that this process holds, durable ones after their commit.

        Never waits and never fails: what cannot be sent at once is dropped, the oldest first.
        """
        ...

    def subscribe(self, run_id: str, after_seq: int) -> AsyncIterator[list[RunEvent]]:
        """Batches in order: durable events with a higher seq, and tokens from now on.

        It begins with the first step of the iterator and ends when the store is closed, at once where there
        are no live events. Close the iterator to end it earlier. A reader that is slow loses the oldest.
        """
        ...


class NoLiveEvents:
    """LiveEvents of a runtime that has nothing to carry them: readers ask the store."""

    @property
    def is_live(self) -> bool:
        """Never."""
        return False

    def publish(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Let them go: readers of this process have them already."""

    async def subscribe(self, run_id: str, after_seq: int) -> AsyncIterator[list[RunEvent]]:
        """Ends at once."""
        nothing: tuple[list[RunEvent], ...] = ()
        for batch in nothing:
            yield batch


@runtime_checkable
class _Live(Protocol):
    @property
    def live(self) -> LiveEvents: ...


def live_events(store: object) -> LiveEvents:
    """What carries live events beside this store; it lives and is closed with the store."""
    return store.live if isinstance(store, _Live) else NoLiveEvents()
