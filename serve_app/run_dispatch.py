"""Hands runs to a FlowRunner and owns the tasks that listen to them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from flows.ports import Clock
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import (
    BudgetError,
    CancelledRun,
    CapacityError,
    InternalError,
    ParleyError,
)
from registries.contracts.runs import RunEvent, RunOrder, RunRequest, RunResult
from registries.specs import FlowSpec
from serve_app.errors import as_parley_error, error_fact
from serve_app.live_run import LiveRun
from serve_app.run_request_check import check_run_request

_ATTEMPTS = 2
DEADLINE_GRACE_S = 5.0
"""How long after a run's deadline its runner may take to say so before the front door does."""


class RunnerLost(Exception):
    """The runner went away before the run's terminal event."""


class Runner(Protocol):
    """A FlowRunner. Raises CapacityError when its queue is full, RunnerLost when it died."""

    def run(self, order: RunOrder) -> AsyncIterator[Sequence[RunEvent]]:
        """Events in batches; the last one is terminal."""
        ...


class RunLog(Protocol):
    """The part of the store that accepting and ending a run needs."""

    async def accept(self, order: RunOrder, flow_version: str) -> None: ...

    async def finish(self, run_id: str, result: RunResult, events: Sequence[RunEvent] = ()) -> bool: ...

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None: ...


class RunDispatch:
    """Accepts runs (committed), sends them to a runner, retries once when that runner dies.

    Every run has a task of its own, made in an empty context: Ray Serve cancels the handle calls of an
    HTTP request that was cancelled, and a flow outlives its client. ``aclose`` ends the tasks; the runs
    themselves go on at their runners.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        catalog: Catalog,
        log: RunLog,
        runner: Runner,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._store = log
        self._runner = runner
        self._clock = clock
        self._new_id = new_id
        self._live: set[LiveRun] = set()
        self._max_live = config.runner_max_replicas * config.runner_max_ongoing + config.runner_max_queued

    @property
    def live(self) -> int:
        """Runs that this process is listening to."""
        return len(self._live)

    async def start(
        self, request: RunRequest, request_id: str, traceparent: str | None = None, with_reader: bool = False
    ) -> LiveRun:
        """The run, accepted and on its way.

        Raises NotFound or ValidationError (see check_run_request), CapacityError, StoreError.
        Cancelling while it is being accepted counts as leaving the run.
        """
        flow = check_run_request(request, self._catalog)
        if len(self._live) >= self._max_live:
            raise CapacityError(f"{self.live} runs are under way, the limit; try again", retry_after_s=1.0)
        order = RunOrder(
            run_id=self._new_id(),
            request_id=request_id,
            request=request,
            deadline_s=request.deadline_s or self._config.default_deadline_s,
            traceparent=traceparent,
        )
        live = LiveRun(order, with_reader)
        self._live.add(live)
        live.task = asyncio.create_task(self._drive(live, flow), context=contextvars.Context())
        try:
            await live.accepted()
        except asyncio.CancelledError:
            live.leave()
            raise
        return live

    async def aclose(self) -> None:
        """Stop listening to every run."""
        tasks = [live.task for live in self._live if live.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, live: LiveRun, flow: FlowSpec) -> None:
        order = live.order
        structlog.contextvars.bind_contextvars(request_id=order.request_id, run_id=order.run_id)
        try:
            await self._store.accept(order, flow.version)
            live.accept()
            async with asyncio.timeout(order.deadline_s + DEADLINE_GRACE_S):
                await self._run_attempts(live)
        except TimeoutError:
            late = BudgetError(f"the run did not end within {order.deadline_s:g} s", param="deadline_s")
            await self._end(live, flow, late)
        except asyncio.CancelledError:
            await self._left(live, flow)
            raise
        except Exception as error:  # noqa: BLE001 - becomes an error of our tree
            known = as_parley_error(error)
            if known is not error:
                structlog.stdlib.get_logger("serve_app.runs").exception("run_dispatch_failed")
            await self._end(live, flow, known)
        finally:
            self._live.discard(live)

    async def _run_attempts(self, live: LiveRun) -> None:
        started_at = self._clock.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            left_s = live.order.deadline_s - (self._clock.monotonic() - started_at)
            order = live.order.model_copy(update={"attempt": attempt, "deadline_s": max(left_s, 0.001)})
            try:
                async for batch in self._runner.run(order):
                    if live.publish(batch) is not None:
                        return
            except RunnerLost as lost:
                structlog.stdlib.get_logger("serve_app.runs").warning(
                    "runner_lost", attempt=attempt, reason=str(lost)
                )
            if await self._ended_elsewhere(live):
                return
        raise InternalError(f"the runner of this run died {_ATTEMPTS} times before the run ended")

    async def _ended_elsewhere(self, live: LiveRun) -> bool:
        """A runner may die between committing the end and telling it."""
        stored = await self._store.get(live.order.run_id, live.order.tenant)
        result = stored.get("result") if stored else None
        if not isinstance(result, Mapping):
            return False
        live.publish([self._terminal(live, RunResult.model_validate(result))])
        return True

    async def _left(self, live: LiveRun, flow: FlowSpec) -> None:
        if live.seq == 0 and live.order.request.on_disconnect == "cancel":
            # No runner has it yet, so nobody else would ever write this run's end.
            await self._end(live, flow, CancelledRun("the client went away"))
        elif not live.ended:
            live.fail(CancelledRun("the front door stopped listening to this run"))

    async def _end(self, live: LiveRun, flow: FlowSpec, error: ParleyError) -> None:
        """Write the end that no runner writes, then tell it."""
        result = _failed(live.order, flow, error)
        event = self._terminal(live, result)
        try:
            await self._store.finish(live.order.run_id, result, [event])
        except ParleyError:
            structlog.stdlib.get_logger("serve_app.runs").exception("run_end_not_written")
        if live.seq > 0 and not live.ended:
            live.publish([event])
        else:
            live.fail(error)

    def _terminal(self, live: LiveRun, result: RunResult) -> RunEvent:
        return RunEvent(
            run_id=live.order.run_id,
            seq=live.seq + 1,
            time=self._clock.time(),
            type=f"run.{result.status}",  # type: ignore[arg-type]
            data={"result": result.model_dump(mode="json")},
        )


def _failed(order: RunOrder, flow: FlowSpec, error: ParleyError) -> RunResult:
    return RunResult(
        run_id=order.run_id,
        flow=flow.name,
        flow_version=flow.version,
        status="cancelled" if isinstance(error, CancelledRun) else "failed",
        request_id=order.request_id,
        error=error_fact(error),
    )
