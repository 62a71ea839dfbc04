"""What dispatching a run needs of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from registries.contracts.runs import RunEvent, RunOrder, RunResult


class RunnerLost(Exception):
    """The runner went away before the run's terminal event."""


class Runner(Protocol):
    """A FlowRunner.

    Raises RunnerLost when it died, CapacityError when its queue is full, Conflict when somebody else has
    the run.
    """

    def run(self, order: RunOrder) -> AsyncIterator[Sequence[RunEvent]]:
        """Events in batches; the last one is terminal."""
        ...


class RunStore(Protocol):
    """The part of the store that accepting and ending a run needs (actors.stores.store.Store)."""

    async def accept(self, order: RunOrder, flow_version: str) -> None: ...

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool: ...

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None: ...


class RunMetrics(Protocol):
    """What is counted about accepting runs (actors.telemetry.metrics.Metrics)."""

    def record_run_queued(self) -> None: ...

    def record_rejected(self, reason: str) -> None: ...
