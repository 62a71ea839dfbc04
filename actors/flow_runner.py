"""FlowRunner: the Serve deployment that runs flows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from actors.gateway.open_gateway import open_gateway
from actors.outputs import outputs_root
from actors.running.ports import GpuResources
from actors.running.ray_placement import ExpertPool, RayPlacement
from actors.running.run_execution import RunExecution, RunParts
from actors.running.run_log import LINGER_S
from actors.running.task_owner import TaskOwner
from actors.stores.open_store import open_store
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.traced_generator import TracedGenerator
from actors.telemetry.tracing import current_traceparent, flush_tracing
from flows.builder import FlowGraphs
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CancelledRun, CapacityError, InternalError
from registries.contracts.runs import RunEvent, RunOrder
from registries.loader import load_catalog

APP_NAME = "parley"
DEPLOYMENT = "FlowRunner"
DRAIN_S = 20.0
"""How long runs may go on when their replica is told to stop."""
BUSY_RUNS = 16
"""With this many runs, tokens linger twice as long before they are sent, and so on."""
MAX_LINGER_S = 0.2


class FlowRunner:
    """Runs flows; every run is a task of this replica, not of the call that asked for it.

    Handles: ``run`` (stream=True), ``cancel``, ``status``; see flow_runner_app for its limits.
    """

    async def __init__(self, config_json: str) -> None:  # type: ignore[misc] # Serve awaits it
        config = RuntimeConfig.model_validate_json(config_json)
        telemetry = open_telemetry(config, "flow_runner")
        self._config = config
        self._metrics = telemetry.metrics
        self._catalog = load_catalog(config)
        self._runs: dict[str, RunExecution] = {}
        self._owner = TaskOwner()
        self._helpers = TaskOwner()
        self._draining = False
        self._gateway = await open_gateway(
            config, self._catalog, observer=telemetry.observer, traceparent=current_traceparent
        )
        experts = ExpertPool(config, self._helpers, telemetry.metrics)
        self._parts = RunParts(
            generator=TracedGenerator(self._gateway),
            store=await open_store(config),
            graphs=FlowGraphs(self._catalog),
            metrics=telemetry.metrics,
            placement=lambda events: RayPlacement(experts, events),
            resources=GpuResources(config.max_vram_usage_gb),
            outputs_root=outputs_root(config),
            linger_s=self._linger_s,
        )
        # Not awaited: the first runs may come before the workers are warm.
        self._helpers.start(experts.prime(config.expert_workers), "prime-experts")
        # On the object: Serve awaits it when it stops a replica, Python's collector must not find it.
        setattr(self, "__del__", self._close)  # noqa: B010

    async def run(self, order: RunOrder) -> AsyncIterator[list[RunEvent]]:
        """Events of the run in lists; the last is terminal and carries ``data["result"]``.

        Raises NotFound (flow), CapacityError (this replica is full or stopping), Conflict (somebody has the
        run), StoreError. Closing or cancelling the stream leaves the run to go on, unless the request said
        ``on_disconnect: cancel``.
        """
        execution = self._start(order)
        reader = execution.log.reader()
        ended = False
        try:
            async for batch in reader.batches():
                yield batch
            ended = True
        finally:
            if not ended and order.request.on_disconnect == "cancel":
                execution.cancel(CancelledRun("the client went away"))

    async def cancel(self, run_id: str) -> bool:
        """Cancel the run if this replica has it; reach all replicas with the handle's ``broadcast``."""
        execution = self._runs.get(run_id)
        if execution is None:
            return False
        execution.cancel(CancelledRun("the run was cancelled"))
        return True

    async def status(self) -> dict[str, Any]:
        """Runs under way and limits of this replica."""
        return {
            "runs": len(self._runs),
            "max_runs": self._config.runner_max_ongoing,
            "draining": self._draining,
            "catalog": self._catalog.digest,
        }

    async def check_health(self) -> None:
        """Serve's probe: that this runs is the answer; a database that is away is no reason to restart."""

    async def _close(self) -> None:
        """When the replica stops: runs may finish, then they are ended and say so."""
        self._draining = True
        if not await self._owner.drain(DRAIN_S):
            for execution in list(self._runs.values()):
                execution.cancel(InternalError("the runner was stopped while the run was under way"))
            await self._owner.drain(DRAIN_S)
        await self._owner.cancel_all()
        await self._helpers.cancel_all()
        await self._parts.store.close()
        await self._gateway.aclose()
        flush_tracing()

    def _start(self, order: RunOrder) -> RunExecution:
        flow = self._catalog.flows.get(order.request.flow_type)
        if self._draining or len(self._runs) >= self._config.runner_max_ongoing:
            self._metrics.record_rejected("draining" if self._draining else "runner_full")
            raise CapacityError(f"this runner has {len(self._runs)} runs under way", retry_after_s=1.0)
        if order.run_id in self._runs:
            raise CapacityError(f"run {order.run_id} is under way here", retry_after_s=1.0)
        execution = RunExecution(order, flow, self._parts)
        self._runs[order.run_id] = execution
        self._metrics.record_queue_depth(len(self._runs))
        execution.task = self._owner.start(execution.work(), f"run-{order.run_id}")
        execution.task.add_done_callback(lambda _: self._forget(order.run_id))
        return execution

    def _forget(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        self._metrics.record_queue_depth(len(self._runs))

    def _linger_s(self) -> float:
        return min(MAX_LINGER_S, LINGER_S * (1 + len(self._runs) / BUSY_RUNS))


def flow_runner_app(config: RuntimeConfig) -> serve.Application:
    """FlowRunner bound to the configuration, with its limits and autoscaling (see docs/operations.md)."""
    deployment: Any = serve.deployment(FlowRunner)
    application: serve.Application = deployment.options(
        name=DEPLOYMENT,
        max_ongoing_requests=config.runner_max_ongoing,
        max_queued_requests=config.runner_max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1.0),
        graceful_shutdown_timeout_s=2 * DRAIN_S + 5,
        logging_config=LoggingConfig(enable_access_log=False),
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        health_check_timeout_s=30,
        ray_actor_options={"num_cpus": 0.5},
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=config.runner_max_replicas,
            target_ongoing_requests=max(1.0, config.runner_max_ongoing * 0.7),
            upscale_delay_s=2,
            downscale_delay_s=60,
            metrics_interval_s=1,
            look_back_period_s=3,
        ),
    ).bind(config.model_dump_json())
    return application
