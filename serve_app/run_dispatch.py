"""Hands runs to a FlowRunner and owns the tasks that listen to them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import structlog

from flows.ports import Clock
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import (
    BudgetError,
    CancelledRun,
    CapacityError,
    Conflict,
    InternalError,
    ParleyError,
)
from registries.contracts.runs import RunEvent, RunOrder, RunRequest, RunResult
from registries.specs import FlowSpec
from serve_app.catalog_checks import check_run_order
from serve_app.errors import as_parley_error, error_fact
from serve_app.live_run import LiveRun
from serve_app.run_ports import RunMetrics, Runner, RunnerLost, RunStore

_ATTEMPTS = 2
_LOOK_S = 0.25
"""How often the store is asked about a run that somebody else holds."""
DEADLINE_GRACE_S = 5.0
"""How long after a run's deadline its runner may take to say so before the front door does."""


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
        store: RunStore,
        runner: Runner,
        clock: Clock,
        metrics: RunMetrics,
        new_id: Callable[[], str],
        grace_s: float = DEADLINE_GRACE_S,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._store = store
        self._runner = runner
        self._clock = clock
        self._metrics = metrics
        self._new_id = new_id
        self._grace_s = grace_s
        self._live: set[LiveRun] = set()
        self._max_live = config.runner_max_replicas * config.runner_max_ongoing + config.runner_max_queued
        self._log = structlog.get_logger("serve_app.runs")

    @property
    def live(self) -> int:
        """Runs that this process is listening to."""
        return len(self._live)

    async def start(
        self, request: RunRequest, request_id: str, traceparent: str | None = None, with_reader: bool = False
    ) -> LiveRun:
        """The run, accepted and on its way.

        Raises NotFound or ValidationError (see check_run_order), CapacityError, StoreError.
        Cancelling while it is being accepted counts as leaving the run.
        """
        order = RunOrder(
            run_id=self._new_id(),
            request_id=request_id,
            request=request,
            deadline_s=request.deadline_s or self._config.default_deadline_s,
            traceparent=traceparent,
        )
        flow = check_run_order(order, self._catalog)
        if self.live >= self._max_live:
            # Before accepting: a run that is refused anyway need not cost two commits.
            self._metrics.record_rejected("runs_full")
            raise CapacityError(f"{self.live} runs are under way, the limit; try again", retry_after_s=1.0)
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
            self._metrics.record_run_queued()
            async with asyncio.timeout(order.deadline_s + self._grace_s):
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
                self._log.exception("run_dispatch_failed")
            if isinstance(known, CapacityError):
                self._metrics.record_rejected("queue_full")
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
                    live.publish(batch)
            except RunnerLost as lost:
                self._log.warning("runner_lost", attempt=attempt, reason=str(lost))
            except Conflict:
                # Another runner has this run, or has ended it: then the store will tell.
                await self._follow(live)
                return
            if live.ended or await self._told_by_store(live):
                return
        raise InternalError(f"the runner of this run died {_ATTEMPTS} times before the run ended")

    async def _follow(self, live: LiveRun) -> None:
        while not await self._told_by_store(live):
            await self._clock.sleep(_LOOK_S)

    async def _told_by_store(self, live: LiveRun) -> bool:
        """A runner may die between committing the end and telling it."""
        stored = await self._store.get(live.order.run_id, live.order.tenant)
        if not stored or not stored.get("result"):
            return False
        live.publish([self._terminal(live, RunResult.model_validate(stored["result"]))])
        return True

    async def _left(self, live: LiveRun, flow: FlowSpec) -> None:
        if live.seq == 0 and live.order.request.on_disconnect == "cancel":
            # No runner has it yet, so nobody else would ever write this run's end.
            await self._end(live, flow, CancelledRun("the client went away"))
        elif not live.ended:
            live.fail(CancelledRun("the front door stopped listening to this run"))

    async def _end(self, live: LiveRun, flow: FlowSpec, error: ParleyError) -> None:
        """Write the end that no runner writes, then tell it."""
        if not live.is_accepted:
            live.fail(error)
            return
        result = _failed(live.order, flow, error)
        event = self._terminal(live, result)
        try:
            await self._store.finish(live.order.run_id, result, [event])
        except ParleyError:
            self._log.exception("run_end_not_written")
        finally:
            # Whatever happens to the writing: nobody waits for ever.
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
