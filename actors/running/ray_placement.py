"""flows.ports.Placement by Ray tasks: each expert in a worker of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray
import ray.exceptions
import structlog

from actors.expert import expert_task
from actors.running.task_owner import TaskOwner
from actors.telemetry.metrics import Metrics
from actors.telemetry.tracing import current_traceparent
from flows.ports import EventSink
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import InternalError, ParleyError
from registries.contracts.runs import ErrorFact, NodeResult

TASKS_PER_WORKER = 2
"""Experts out at once, for each worker that is kept: a worker runs one at a time and holds 140 MB, and Ray
starts as many as there are tasks. Sixty runs with three experts each once started 130 of them and stood."""
MIN_TASKS = 3
EXPERT_CPUS = 0.01
"""Of a logical CPU: an expert waits for its model; what it may use is bounded by the runner, not by Ray."""
WORKER_ATTEMPTS = 2
CANCEL_GRACE_S = 3.0
"""How long a cancelled expert may take to abort its model call before its worker is killed."""
WARM_S = 0.5
NodeRunner = Callable[[Mapping[str, Any]], Awaitable[NodeResult]]


class ExpertPool:
    """Starts experts for a whole runner; ``owner`` keeps what outlives a cancelled call.

    ``take`` says whether one more may go out as a task; ``give_back`` follows each that did.
    """

    def __init__(self, config: RuntimeConfig, owner: TaskOwner, metrics: Metrics) -> None:
        self._config_json = config.model_dump_json()
        self._owner = owner
        self._metrics = metrics
        self._room = max(MIN_TASKS, TASKS_PER_WORKER * config.expert_workers)
        self._task = ray.remote(num_cpus=EXPERT_CPUS, max_retries=0, num_returns="streaming")(expert_task)

    def take(self) -> bool:
        """Whether a worker may be asked for; False when as many are out as may be."""
        if self._room <= 0:
            return False
        self._room -= 1
        return True

    def give_back(self) -> None:
        """An expert that went out has ended."""
        self._room += 1

    def start(self, payload: Mapping[str, Any]) -> Any:
        """An ObjectRefGenerator of the expert's items."""
        return self._task.remote(self._config_json, dict(payload))

    async def prime(self, count: int) -> int:
        """Start ``count`` workers and open their gateways; how many there were (0 when Ray refuses)."""
        held = [self.start({"warm_s": WARM_S}) for _ in range(count)]
        try:
            pids = {(await _next(items))["pid"] for items in held}
        except ray.exceptions.RayError as error:
            structlog.get_logger("actors.running").warning("experts_not_primed", error=type(error).__name__)
            return 0
        return len(pids)

    def cancel(self, items: Any) -> None:
        """Cancel the task: first so that it can abort its call, then by killing its worker."""
        self._owner.start(_cancel(items), "cancel-expert")

    def count_restart(self) -> None:
        """A worker died and its expert is run again."""
        self._metrics.record_expert_restart()


class RayPlacement:
    """Placement for one run: its experts' events go to the run's sink.

    ``here`` runs a node in this process: what a busy runner has more than workers does not wait for one,
    since an expert waits for its model nearly all of its time. ``check_held`` raises LeaseLost when the run
    may be another runner's: it is asked before each try of an expert.
    """

    def __init__(
        self, pool: ExpertPool, events: EventSink, here: NodeRunner, check_held: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._events = events
        self._here = here
        self._check_held = check_held

    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        """Run the node in a worker, or here when none is free; again when the worker dies, then it failed.

        Cancelling cancels the task, which aborts the model call. Raises LeaseLost.
        """
        if not self._pool.take():
            return await self._here(payload)
        try:
            return await self._in_a_worker(payload)
        finally:
            self._pool.give_back()

    async def _in_a_worker(self, payload: Mapping[str, Any]) -> NodeResult:
        sent = dict(payload)
        traceparent = current_traceparent()
        if traceparent is not None:
            sent["traceparent"] = traceparent
        for attempt in range(1, WORKER_ATTEMPTS + 1):
            self._check_held()
            try:
                return await self._attempt(sent)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                log = structlog.get_logger("actors.running")
                log.warning("expert_worker_died", attempt=attempt, error=type(error).__name__)
                if attempt < WORKER_ATTEMPTS:
                    self._pool.count_restart()
                    sent["attempt"] = int(sent.get("attempt", 1)) + 1
        return _died(sent)

    async def _attempt(self, payload: Mapping[str, Any]) -> NodeResult:
        items = self._pool.start(payload)
        ended = False
        try:
            while True:
                item = await _next(items)
                if "result" in item:
                    ended = True
                    return NodeResult.model_validate(item["result"])
                for type_, node, data, attempt in item["events"]:
                    await self._events.emit(type_, node, data, attempt)
        except ray.exceptions.RayTaskError as error:
            ended = True
            cause = error.cause
            raise (
                cause if isinstance(cause, ParleyError) else InternalError("an expert failed inside")
            ) from error
        except ray.exceptions.RayError:
            ended = True
            raise
        finally:
            if not ended:
                self._pool.cancel(items)


async def _next(items: Any) -> dict[str, Any]:
    reference = await anext(items)
    item: dict[str, Any] = await reference
    return item


async def _cancel(items: Any) -> None:
    ray.cancel(items)
    try:
        async with asyncio.timeout(CANCEL_GRACE_S):
            while True:
                await _next(items)
    except TimeoutError:
        ray.cancel(items, force=True)
    except (StopAsyncIteration, ray.exceptions.RayError):
        return


def _died(payload: Mapping[str, Any]) -> NodeResult:
    node = dict(payload["node"])
    return NodeResult(
        id=str(node["id"]),
        role=str(node.get("role") or node["id"]),
        kind=str(node.get("kind", "")),
        visit=int(payload.get("visit", 1)),
        status="failed",
        error=ErrorFact(
            code="internal", message=f"the worker of this expert died {WORKER_ATTEMPTS} times", retryable=True
        ),
    )
