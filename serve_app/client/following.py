"""A reader of one run's events that outlives its connections, without a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

from registries.contracts.errors import CapacityError, ParleyError, StoreError, ValidationError
from registries.contracts.runs import SETTLED_EVENTS, TERMINAL_EVENTS, TOKEN_EVENT, RunEvent
from serve_app.client import requests
from serve_app.client.api_errors import NotRunning, StreamCut, StreamEnded
from serve_app.client.call import StreamCall
from serve_app.client.retries import Retries, is_transient

Until = Literal["end", "waiting"]
GOOD_CONNECTION_S = 5.0
"""A connection that held this long is no sign of trouble when it breaks, even if nothing happened on it."""


def checked_until(until: Until) -> Until:
    """The same; raises ValidationError for another word, which would pass for the default."""
    if until not in get_args(Until):
        raise ValidationError(f"until {until!r} is not allowed. Allowed: end, waiting", param="until")
    return until


class Following:
    """Which events were handed on, where to attach again, and whether it is still worth trying.

    Durable events come exactly once and in order: one that was seen is dropped, and one that comes too early
    counts as a broken connection, because the history has those between. Tokens pass as they come; those
    that were said while nobody was attached are in ``node.completed``.

    A new run has no id before its first event: until then its own order is repeated (with the same
    Idempotency-Key, so it stays one run), as often as any order is.
    """

    def __init__(
        self,
        retries: Retries,
        run_id: str | None,
        after: int = 0,
        until: Until = "end",
        order: StreamCall[RunEvent] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended = False
        self._retries, self._run_id, self._after = retries, run_id, after
        self._until = checked_until(until)
        self._order, self._clock = order, clock
        self._rests = False
        self._resting = SETTLED_EVENTS if until == "waiting" else TERMINAL_EVENTS
        self._failed = 0
        self._attached_after = -1
        self._attached_at = self._good_at = clock()

    def call(self) -> StreamCall[RunEvent]:
        """What to ask for now."""
        self._attached_at = self._clock()
        self._attached_after = self._after
        if self._run_id is None:
            assert self._order is not None
            return self._order
        return requests.events(self._run_id, self._after, self._until)

    def take(self, event: RunEvent) -> bool:
        """Whether to hand this event on. Raises StreamCut when there are some missing before it."""
        self._run_id = event.run_id
        if event.type == TOKEN_EVENT:
            self._attached_after = -1
            return True
        if event.seq <= self._after:
            return False
        if event.seq != self._after + 1:
            raise StreamCut(f"event {event.seq} of run {event.run_id} came after event {self._after}")
        self._after, self._failed, self._good_at = event.seq, 0, self._clock()
        self._rests = event.type in self._resting
        return True

    def finish(self) -> None:
        """A connection came to its last event: only the live story of a new run has one.

        Every other connection reads a history, which may hold an end before a restart: there the server
        closes the stream when nothing comes after it.
        """
        self.ended = True

    @property
    def _had_all(self) -> bool:
        """Whether this connection brought nothing new, and soon."""
        in_no_time = self._clock() - self._attached_at < GOOD_CONNECTION_S
        return in_no_time and self._attached_after == self._after > 0

    def wait_after(self, error: ParleyError) -> float:
        """Seconds until the next try; raises the error when it is final or patience has run out."""
        # Ended in good order after an end, or at once for a reader who had seen that already.
        if isinstance(error, StreamEnded) and (self._rests or self._had_all):
            self.ended = True
            return 0.0
        now = self._clock()
        if isinstance(error, StreamCut) and now - self._attached_at >= GOOD_CONNECTION_S:
            self._failed, self._good_at = 0, now
        wait_s = self._retries.wait_s(self._failed, error) if self._may_reattach(error) else None
        self._failed += 1
        if wait_s is None or now + wait_s - self._good_at > self._retries.patience_s:
            raise error from None
        if self._retries.on_reattach is not None and self._run_id is not None:
            self._retries.on_reattach(error, wait_s, self._failed)
        return wait_s

    def _may_reattach(self, error: ParleyError) -> bool:
        # AnswerLate too: nobody gave a stream's silence as a time limit.
        transient = isinstance(error, NotRunning) or is_transient(error)
        if self._run_id is None:
            return transient and self._failed < self._retries.times
        if transient:
            return True
        # An error inside a stream has no status; a full runtime, or one without its database, recovers.
        return error.context.get("status") is None and isinstance(error, CapacityError | StoreError)
