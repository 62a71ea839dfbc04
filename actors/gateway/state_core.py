"""The shared breaker table without Ray: versions, so that watchers get only what changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.gateway.breaker import Allowed, Blocked, BreakerPolicy, BreakerRecord, Outcome
from actors.gateway.breaker_board import LocalBoard
from actors.gateway.observer import GatewayObserver


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """Records that changed since the asked version; ``incarnation`` differs after the actor's rebirth."""

    incarnation: str
    version: int
    records: tuple[BreakerRecord, ...] = ()


class StateCore:
    """Breaker transitions of the whole cluster, each change with a version number."""

    def __init__(
        self,
        incarnation: str,
        policy: BreakerPolicy,
        clock: Callable[[], float],
        rng: random.Random | None = None,
        observer: GatewayObserver | None = None,
    ) -> None:
        self.incarnation = incarnation
        self.version = 0
        self._board = LocalBoard(policy, clock, rng, observer)
        self._changed_at: dict[str, int] = {}

    def sync(self, records: Iterable[BreakerRecord]) -> StateSnapshot:
        """Take over what a caller holds (highest epoch wins) and answer with everything."""
        self._merge(records)
        return self.since(0)

    def push(self, outcomes: Iterable[Outcome], records: Iterable[BreakerRecord]) -> bool:
        """Count outcomes, then take over transitions that callers made by themselves; True if any changed."""
        before = self.version
        for outcome in outcomes:
            if self._board.breaker(outcome.key).record(outcome):
                self._touch(outcome.key)
        self._merge(records)
        return self.version != before

    def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        """The half-open permit of this key, and the breaker's state after the decision."""
        breaker = self._board.breaker(key)
        before = breaker.to_record().permit_id
        answer = breaker.grant(lease_s)
        if breaker.to_record().permit_id != before:
            self._touch(key)
        return answer, breaker.to_record()

    def since(self, version: int) -> StateSnapshot:
        """What changed after ``version``."""
        keys = [k for k, at in self._changed_at.items() if at > version]
        return StateSnapshot(
            self.incarnation, self.version, tuple(self._board.breaker(k).to_record() for k in keys)
        )

    def _merge(self, records: Iterable[BreakerRecord]) -> None:
        for record in records:
            if self._board.merge([record], authoritative=False):
                self._touch(record.key)

    def _touch(self, key: str) -> None:
        self.version += 1
        self._changed_at[key] = self.version
