"""The runs that one runner holds: their executions, leases and slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from actors.running.audience import Audience
from actors.running.lease_keeper import LeaseKeeper
from actors.running.run_execution import RunExecution, RunParts
from actors.running.task_owner import TaskOwner
from actors.stores.records import ClaimedRun, RunWrite
from flows.nodes.run_payload import error_fact
from flows.pinned_flow import current_flow, kept_flow
from registries.contracts.errors import CancelledRun, ParleyError, ValidationError
from registries.contracts.runs import RunEvent, RunResult
from registries.specs import FlowSpec

HAND_OVER_S = 10.0
"""How long handing runs over may take once they were told: a commit each, and the end of their calls."""


class RunRegister:
    """Begins claimed runs and forgets ended ones. ``on_free`` is called when a slot comes free.

    A register that drains has no free slot any more.
    """

    def __init__(
        self,
        parts: RunParts,
        keeper: LeaseKeeper,
        max_runs: int,
        current_flow: Callable[[str], FlowSpec],
        on_free: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._keeper = keeper
        self._max_runs = max_runs
        self._current_flow = current_flow
        self._on_free = on_free
        self._owner = TaskOwner()
        self._runs: dict[str, RunExecution] = {}
        self._claims: set[asyncio.Task[RunExecution | None]] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: str) -> RunExecution | None:
        """The run, if it is held here."""
        return self._runs.get(run_id)

    @property
    def free(self) -> int:
        """How many more runs may be begun; claims that are under way have a slot each."""
        return 0 if self.draining else max(0, self._max_runs - len(self._runs) - len(self._claims))

    async def take(
        self, claim: Awaitable[ClaimedRun | None], audience: Audience = Audience()
    ) -> RunExecution | None:
        """Begin the run that this claim takes; None when it takes none. Raises what the claim raises.

        Whoever asked may leave meanwhile: a claim cannot be taken back, so that its run is begun all the
        same, and cancelled then if its request says so.
        """
        claiming = asyncio.create_task(self._take(claim, audience))
        self._claims.add(claiming)
        claiming.add_done_callback(self._claims.discard)
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(_leave)
            raise

    def begin(
        self, claimed: ClaimedRun, asked_at: float, audience: Audience = Audience()
    ) -> RunExecution | None:
        """Start a run that was claimed by a request sent at ``asked_at`` (monotonic).

        None for a run whose flow this version of the runtime cannot build: it ends as failed, and says so.
        """
        run_id, lease = claimed.order.run_id, claimed.lease
        try:
            flow = self._flow_of(claimed)
        except ValidationError as error:
            self._owner.start(self._refuse(claimed, error), f"refuse-{run_id}")
            return None
        if (before := self._runs.get(run_id)) is not None:
            # Its lease ran out and came back to us: nobody else tells the old execution.
            before.lose()
        execution = RunExecution(claimed, flow, self._parts, lambda: self._keeper.is_sure(lease), audience)
        self._runs[run_id] = execution
        self._keeper.add(
            lease,
            asked_at,
            execution.lose,
            lambda: execution.cancel(CancelledRun("the run was cancelled")),
        )
        self._parts.metrics.record_queue_depth(len(self._runs))
        execution.task = self._owner.start(_work(execution, before), f"run-{run_id}")
        execution.task.add_done_callback(lambda _: self._forget(execution))
        return execution

    async def drain(self, timeout_s: float) -> None:
        """Let runs end by themselves, then hand the rest over to other runners; nothing is left when done."""
        self.draining = True
        ends_at = time.monotonic() + timeout_s
        if self._claims:
            # What they take is a run like the others, and must not be held by nobody.
            await asyncio.wait(set(self._claims), timeout=timeout_s)
        if not await self._owner.drain(max(0.0, ends_at - time.monotonic())):
            structlog.get_logger("actors.flow_runner").info("handing_runs_over", runs=len(self._runs))
            for execution in list(self._runs.values()):
                execution.hand_over()
            await self._owner.drain(HAND_OVER_S)
        await self._owner.cancel_all()

    async def _take(self, claim: Awaitable[ClaimedRun | None], audience: Audience) -> RunExecution | None:
        asked_at = time.monotonic()
        claimed = await claim
        return None if claimed is None else self.begin(claimed, asked_at, audience)

    def _flow_of(self, claimed: ClaimedRun) -> FlowSpec:
        """The version that the run is pinned to; raises ValidationError."""
        name, version = claimed.order.request.flow_type, claimed.flow_version
        return current_flow(self._current_flow, name, version) or kept_flow(name, version, claimed.flow_spec)

    async def _refuse(self, claimed: ClaimedRun, error: ParleyError) -> None:
        order = claimed.order
        result = RunResult(
            run_id=order.run_id,
            flow=order.request.flow_type,
            flow_version=claimed.flow_version,
            status="failed",
            request_id=order.request_id,
            error=error_fact(error),
        )
        event = RunEvent(
            run_id=order.run_id,
            seq=claimed.last_seq + 1,
            time=time.time(),
            type="run.failed",
            data={"result": result.model_dump(mode="json")},
        )
        await self._parts.store.finish(claimed.lease, result, RunWrite(events=(event,)))
        self._parts.metrics.record_unheld_end(result)

    def _forget(self, execution: RunExecution) -> None:
        self._keeper.remove(execution.lease)
        if self._runs.get(execution.order.run_id) is execution:
            del self._runs[execution.order.run_id]
        self._parts.metrics.record_queue_depth(len(self._runs))
        # On the next turn of the loop: done callbacks run in any order.
        asyncio.get_running_loop().call_soon(self._on_free)


async def _work(execution: RunExecution, before: RunExecution | None) -> None:
    """The run's task. An execution of the same run ends first, so that no node is called twice at once."""
    if before is not None and before.task is not None:
        await asyncio.wait({before.task})
    await execution.work()


def _leave(claiming: asyncio.Task[RunExecution | None]) -> None:
    if claiming.cancelled() or claiming.exception() is not None:
        return
    if (execution := claiming.result()) is not None:
        execution.leave()
