"""All breakers of one process, and the port through which the gateway asks them."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actors.gateway.breaker import (
    Admission,
    Allowed,
    Blocked,
    Breaker,
    BreakerPolicy,
    BreakerRecord,
    BreakerState,
    Outcome,
)
from actors.gateway.observer import GatewayObserver, NullObserver
from registries.contracts.generation import BreakerFact


class BreakerBoard(Protocol):
    """What the gateway needs of breakers. Only ``permit`` may wait for another process."""

    def admit(self, key: str) -> Admission:
        """Whether a call to this provider and endpoint may go; a local look-up."""
        ...

    async def permit(self, key: str, lease_s: float) -> Allowed | Blocked:
        """Ask to be the one probe of a half-open breaker."""
        ...

    def report(self, outcome: Outcome) -> None:
        """Take in how a try went; returns at once."""
        ...

    def fact(self, key: str) -> BreakerFact:
        """The breaker's state now."""
        ...

    def records(self) -> tuple[BreakerRecord, ...]:
        """Every breaker that is worth sending to another process."""
        ...

    def adopt(self, records: Iterable[BreakerRecord]) -> None:
        """Merge states that came with a task or its result; the higher epoch wins."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for /api/system."""
        ...

    async def aclose(self) -> None:
        """End what the board runs in the background; idempotent."""
        ...


class LocalBoard:
    """The breakers of this process alone: the whole truth without a cluster, the fallback within one."""

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        observer: GatewayObserver | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng or random.Random()
        self._observer = observer or NullObserver()
        self._breakers: dict[str, Breaker] = {}

    def breaker(self, key: str) -> Breaker:
        """The breaker of that key, made on first use."""
        found = self._breakers.get(key)
        if found is None:
            found = self._breakers[key] = Breaker(
                key, self._policy, self._clock, self._rng, lambda: uuid.uuid4().hex
            )
        return found

    def admit(self, key: str) -> Admission:
        """See BreakerBoard."""
        return self.breaker(key).admit()

    async def permit(self, key: str, lease_s: float) -> Allowed | Blocked:
        """See BreakerBoard; answered here, never waits."""
        return self.grant(key, lease_s)

    def grant(self, key: str, lease_s: float) -> Allowed | Blocked:
        """A permit from this process's own breaker."""
        breaker = self.breaker(key)
        before = breaker.state
        admission = breaker.grant(lease_s)
        self._announce(breaker, before)
        return admission

    def report(self, outcome: Outcome) -> None:
        """See BreakerBoard."""
        self.record(outcome)

    def record(self, outcome: Outcome) -> bool:
        """Count the outcome here; True when the breaker changed state."""
        breaker = self.breaker(outcome.key)
        before = breaker.state
        breaker.record(outcome)
        self._announce(breaker, before)
        return breaker.state is not before

    def merge(self, records: Iterable[BreakerRecord], authoritative: bool) -> bool:
        """Take over states from elsewhere; True when any breaker changed."""
        changed = False
        for record in records:
            breaker = self.breaker(record.key)
            before = breaker.state
            changed = breaker.merge(record, authoritative) or changed
            self._announce(breaker, before)
        return changed

    def adopt(self, records: Iterable[BreakerRecord]) -> None:
        """See BreakerBoard."""
        self.merge(records, authoritative=False)

    def fact(self, key: str) -> BreakerFact:
        """See BreakerBoard."""
        breaker = self.breaker(key)
        return BreakerFact(key=key, state=breaker.state.value, epoch=breaker.epoch)

    def records(self) -> tuple[BreakerRecord, ...]:
        """See BreakerBoard; untouched breakers are left out."""
        records = (b.to_record() for b in self._breakers.values())
        return tuple(r for r in records if r.epoch or r.failures or r.throttled_for_s)

    def describe(self) -> dict[str, Any]:
        """See BreakerBoard."""
        return {"shared": False, "connected": False, "breakers": self.describe_breakers()}

    def describe_breakers(self) -> list[dict[str, Any]]:
        """Every breaker as JSON, sorted by key; durations in seconds."""
        return [_as_json(b.to_record()) for _, b in sorted(self._breakers.items())]

    async def aclose(self) -> None:
        """See BreakerBoard."""

    def _announce(self, breaker: Breaker, before: BreakerState) -> None:
        if breaker.state is not before:
            self._observer.on_breaker(
                breaker.key, before.value, breaker.state.value, breaker.epoch, breaker.cause
            )


def _as_json(record: BreakerRecord) -> dict[str, Any]:
    return {
        "key": record.key,
        "state": record.state.value,
        "epoch": record.epoch,
        "failures": record.failures,
        "open_for_s": round(record.open_for_s, 3),
        "throttled_for_s": round(record.throttled_for_s, 3),
        "cause": record.cause,
    }
