"""What dispatching a run needs of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from registries.contracts.runs import RunEvent, RunOrder


class RunnerLost(Exception):
    """The runner went away before the run's terminal event."""


class Runner(Protocol):
    """The FlowRunner deployment. All of it are hints for speed: what counts is in the store."""

    def result(self, asked: RunOrder | str) -> AsyncIterator[bytes]:
        """As ``run``, for the end alone: empty items are signs of life, the last is a RunEvent as JSON."""
        ...

    def run(self, asked: RunOrder | str) -> AsyncIterator[Sequence[RunEvent]]:
        """Events in batches from the claim on; the last one is terminal, or ``run.waiting``.

        ``asked`` is an accepted run's id, or an order, which the runner accepts with its claim. Raises
        RunnerLost when it died, CapacityError when the run has to queue or was handed over, Conflict when
        somebody else has it or it ended.
        """
        ...

    async def wake(self) -> None:
        """Look at the queue now. Raises RunnerLost, CapacityError."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Whoever holds the run, stop it now. Raises RunnerLost, CapacityError."""
        ...


class RunMetrics(Protocol):
    """What is counted about accepting runs (actors.telemetry.metrics.Metrics)."""

    def record_run_queued(self) -> None: ...

    def record_rejected(self, reason: str) -> None: ...
