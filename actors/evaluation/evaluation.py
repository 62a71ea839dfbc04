"""Runs the arms of an evaluation over its samples: in parallel within limits, resumable, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from actors.evaluation.arms import Arm
from actors.evaluation.dataset import Sample
from actors.evaluation.progress import Progress
from actors.evaluation.records import ItemRecord, ResultLog
from registries.contracts.errors import ParleyError, ProviderError
from registries.contracts.runs import ErrorFact

FAILURES_IN_A_ROW = 25
"""After so many an arm is given up: the model is gone, and the rest of the data set would fail as well."""


class Evaluation:
    """One arm after another, so that their latencies are comparable; ``concurrency`` items of it at a time.

    A failed item is a record with its error, and is done again by a rerun. Cancelling ends the calls in
    flight; what was recorded stays.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        log: ResultLog,
        concurrency: int,
        say: Callable[[str], None],
        progress: Progress | None = None,
        progress_every_s: float = 5.0,
    ) -> None:
        self._samples = samples
        self._log = log
        self._concurrency = concurrency
        self._say = say
        self._progress = progress or Progress()
        self._every_s = progress_every_s
        self._writing = asyncio.Lock()
        self._failed_in_a_row = 0

    async def run(self, arms: Sequence[Arm]) -> None:
        """Answer what is not finished; ProviderError when an arm is given up, StoreError on a full disk."""
        try:
            async with asyncio.TaskGroup() as group:
                ticker = group.create_task(self._tick())
                for arm in arms:
                    await self._run_arm(arm)
                ticker.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._say(self._progress.line())

    @property
    def errors(self) -> int:
        """Items that failed in this run."""
        return self._progress.errors

    async def _run_arm(self, arm: Arm) -> None:
        finished = self._log.finished(arm.name)
        todo = [sample for sample in self._samples if sample.id not in finished]
        self._progress.expect(arm.name, len(todo), len(self._samples) - len(todo))
        self._failed_in_a_row = 0
        waiting = iter(todo)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(todo))):
                    group.create_task(self._work(arm, waiting))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _work(self, arm: Arm, waiting: Iterator[Sample]) -> None:
        for sample in waiting:
            try:
                record = await arm.answer(sample)
            except ParleyError as error:
                record = failed_record(arm.name, sample, error)
            async with self._writing:
                await asyncio.to_thread(self._log.append, record)
            self._progress.add(record)
            self._watch_failures(arm, record)

    def _watch_failures(self, arm: Arm, record: ItemRecord) -> None:
        if record.error is None:
            self._failed_in_a_row = 0
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise ProviderError(
                f"{arm.name} was given up: {FAILURES_IN_A_ROW} items in a row failed, the last one "
                f"({record.id}) with {record.error.code}: {record.error.message}"
            )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._say(self._progress.line())


def failed_record(arm: str, sample: Sample, error: ParleyError) -> ItemRecord:
    """A record of an item without an answer; it counts as wrong where there is a target."""
    fault = getattr(error, "fault", None)
    return ItemRecord(
        arm=arm,
        id=sample.id,
        category=sample.category,
        final_correct=False if sample.targets else None,
        error=ErrorFact(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            fault=str(fault) if fault else None,
            param=error.param,
            retry_after_s=error.retry_after_s,
        ),
    )
