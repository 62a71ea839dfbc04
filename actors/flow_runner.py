"""FlowRunner: the Serve deployment that runs flows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.schema import LoggingConfig

from actors.gateway.open_gateway import open_gateway
from actors.heap import settle_heap
from actors.outputs import outputs_root
from actors.processor_share import ProcessorShare
from actors.runner_scaling import RunnerScalingPolicy, runner_metrics
from actors.running.audience import Audience
from actors.running.event_patience import begin_patience_s, token_linger_s
from actors.running.housekeeping import Housekeeping
from actors.running.lease_keeper import LeaseKeeper
from actors.running.nodes_here import nodes_here
from actors.running.owner_name import owner_name
from actors.running.ports import GpuResources
from actors.running.ray_placement import ExpertPool, RayPlacement
from actors.running.replica_stop import replica_stop
from actors.running.run_execution import RunExecution, RunParts
from actors.running.run_queue import RunQueue
from actors.running.run_register import HAND_OVER_S, RunRegister
from actors.running.scheduled_backup import ScheduledBackup
from actors.running.task_owner import TaskOwner
from actors.stores.json_text import dump_json
from actors.stores.live_events import NoLiveEvents, live_events
from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, NewRun
from actors.telemetry.logs import flush_logs
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.traced_generator import TracedGenerator
from actors.telemetry.tracing import current_traceparent, flush_tracing
from flows.builder import FlowGraphs
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CancelledRun, CapacityError, Conflict
from registries.contracts.runs import RunEvent, RunOrder
from registries.loader import load_catalog

APP_NAME = "parley"
DEPLOYMENT = "FlowRunner"
STOP_POLL_S = 0.2
"""How late a runner may notice that it has to stop."""
CLOSE_S = 15.0
"""For what comes after the runs: connections to the database and to models are closed."""
SHORT_RUN_S = 0.5
"""Half of what the front door waits for a sign of life before it accepts the run itself."""


class FlowRunner:
    """Runs flows; every run is a task of this replica, not of the call that asked for it.

    Which runs it holds is decided by claims in the database: ``run`` and ``wake`` are hints for speed, and
    runs that nobody hinted at are fetched from the queue. Handles: ``run`` (stream=True), ``wake``,
    ``cancel``, ``status``; see flow_runner_app for its limits.
    """

    async def __init__(self, config_json: str) -> None:  # type: ignore[misc] # Serve awaits it
        config = RuntimeConfig.model_validate_json(config_json)
        telemetry = open_telemetry(config, "flow_runner")
        self._config = config
        self._metrics = telemetry.metrics
        self._catalog = load_catalog(config)
        self._helpers = TaskOwner()
        self._share = ProcessorShare()
        self._busy = 0.0
        self._gateway = await open_gateway(
            config, self._catalog, observer=telemetry.observer, traceparent=current_traceparent
        )
        experts = ExpertPool(config, self._helpers, telemetry.metrics)
        self._store = await open_store(config, "runner", telemetry.metrics.record_unheld_end)
        live = live_events(self._store)
        # Words of a run that nobody streams reach readers by live events alone.
        self._shows_tokens = not isinstance(live, NoLiveEvents)
        generator = TracedGenerator(self._gateway)
        resources = GpuResources(config.max_vram_usage_gb)
        parts = RunParts(
            generator=generator,
            store=self._store,
            graphs=FlowGraphs(self._catalog),
            metrics=telemetry.metrics,
            placement=lambda events, held, check_held: RayPlacement(
                experts, events, nodes_here(held, events, resources, self._catalog), check_held
            ),
            resources=resources,
            outputs_root=outputs_root(config),
            linger_s=lambda: token_linger_s(len(self._register)),
            begin_patience_s=lambda: begin_patience_s(self._busy),
            publish=lambda events: live.publish(events[0].run_id, events),
        )
        self._owner_name = owner_name(config)
        self._keeper = LeaseKeeper(self._store.open_renewer(), config.lease.ttl_s, asyncio.get_running_loop())
        self._keeper.start()
        self._register = RunRegister(
            parts, self._keeper, config.runner_max_ongoing, self._catalog.flows.get, self._on_free
        )
        self._queue = RunQueue(
            self._store, self._owner_name, config.lease, self._free, self._begin, telemetry.metrics
        )
        self._helpers.start(self._queue.run(), "run-queue")
        backups = ScheduledBackup(self._store, config)
        self._helpers.start(Housekeeping(self._store, config, backups.back_up).run(), "housekeeping")
        # Not awaited: the first runs may come before the workers are warm.
        self._helpers.start(experts.prime(config.expert_workers), "prime-experts")
        self._helpers.start(self._heed_stop(replica_stop()), "heed-stop")
        # On the object: Serve awaits it when it stops a replica, Python's collector must not find it.
        setattr(self, "__del__", self._close)  # noqa: B010
        settle_heap()

    async def run(self, asked: RunOrder | str) -> AsyncIterator[list[RunEvent]]:
        """Events of the run in lists, from its claim here; the last is terminal, or ``run.waiting``.

        ``asked`` is an accepted run's id, or an order, which is accepted in the same commit. A run that is
        held here already gets one more reader. Raises NotFound (flow), CapacityError (this replica is full or
        stopping, older runs wait, or the run was handed over), Conflict (somebody else has the run, or it
        ended), StoreError. Closing or cancelling the stream leaves the run to go on, unless the request
        said ``on_disconnect: cancel``.
        """
        execution = await self._execution(asked, Audience())
        reader = execution.log.reader()
        ended = False
        try:
            async for batch in reader.batches():
                yield batch
            ended = True
        finally:
            if not ended:
                execution.leave()

    async def result(self, asked: RunOrder | str) -> AsyncIterator[bytes]:
        """As ``run`` for somebody who wants the end alone: its RunEvent as JSON, one item.

        Before it comes an empty item when the run takes longer than ``SHORT_RUN_S``: it is begun. Every item
        of a stream costs a hop, and most of what ``run`` tells would be thrown away.
        """
        execution = await self._execution(asked, Audience(tokens=self._shows_tokens, events=False))
        assert execution.task is not None
        try:
            ended, _ = await asyncio.wait({execution.task}, timeout=SHORT_RUN_S)
            if not ended:
                yield b""
                await asyncio.wait({execution.task})
        finally:
            if not execution.task.done():
                execution.leave()
        if execution.log.ending is None:
            raise execution.error or CapacityError("the run goes on at another runner", retry_after_s=1.0)
        yield dump_json(execution.log.ending.model_dump()).encode()

    async def wake(self) -> None:
        """Look at the queue now: a run was accepted."""
        self._queue.wake()

    async def cancel(self, run_id: str) -> bool:
        """Cancel the run if this replica has it; reach all replicas with the handle's ``broadcast``."""
        execution = self._register.get(run_id)
        if execution is None:
            return False
        execution.cancel(CancelledRun("the run was cancelled"))
        return True

    async def status(self) -> dict[str, Any]:
        """Runs under way and limits of this replica, and the queue as it saw it last."""
        queue = self._queue.state
        return {
            "runs": len(self._register),
            "max_runs": self._config.runner_max_ongoing,
            "draining": self._register.draining,
            "catalog": self._catalog.digest,
            "owner": self._owner_name,
            "queue": {"queued": queue.queued, "running": queue.running, "waiting": queue.waiting},
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For RunnerScalingPolicy; Serve asks every second (metrics_interval_s)."""
        self._busy = self._share.read()
        return dict(runner_metrics(len(self._register), self._queue.state.queued, self._busy))

    async def check_health(self) -> None:
        """Serve's probe: that this runs is the answer; a database that is away is no reason to restart."""

    async def _heed_stop(self, stopping: Callable[[], bool]) -> None:
        """Drain as soon as Serve wants this replica to stop, which ends the calls that Serve waits for."""
        while not stopping():  # noqa: ASYNC110 - Serve has a flag for it, and no event
            await asyncio.sleep(STOP_POLL_S)
        await self._drain()

    async def _drain(self) -> None:
        """Runs may finish, then they are handed over; nothing is lost. May be called again meanwhile."""
        self._register.draining = True
        drain_s = self._config.runner_drain_s
        ends_at = time.monotonic() + drain_s
        try:
            await self._queue.settle(drain_s)
        except TimeoutError:
            structlog.get_logger("actors.flow_runner").warning("claim_not_over")
        await self._register.drain(max(0.0, ends_at - time.monotonic()))

    async def _close(self) -> None:
        """When the replica stops and no call is under way any more."""
        await self._drain()
        await self._helpers.cancel_all()
        await asyncio.to_thread(self._keeper.close)
        await self._store.close()
        await self._gateway.aclose()
        flush_tracing()
        flush_logs()

    async def _execution(self, asked: RunOrder | str, audience: Audience) -> RunExecution:
        run_id = asked if isinstance(asked, str) else asked.run_id
        if (held := self._register.get(run_id)) is not None:
            return held
        if self._free() <= 0 or self._queue.backlog:
            # Those in the queue came first; whoever has a slot fetches this one in its turn.
            self._queue.backlog = True
            raise CapacityError(f"this runner has {len(self._register)} runs under way", retry_after_s=1.0)
        new = asked if isinstance(asked, str) else self._new_run(asked)
        lease = self._config.lease
        claim = self._store.claim(new, self._owner_name, lease.ttl_s, lease.max_deaths)
        execution = await self._register.take(claim, audience)
        if execution is None:
            raise Conflict(f"run {run_id} is taken already, or has ended", param="run_id")
        return execution

    def _new_run(self, order: RunOrder) -> NewRun:
        flow = self._catalog.flows.get(order.request.flow_type)
        return NewRun(order, flow.version, flow.document)

    def _free(self) -> int:
        return self._register.free

    def _begin(self, claimed: ClaimedRun, asked_at: float) -> None:
        if claimed.taken_over:
            self._metrics.record_lease_reclaimed()
        self._register.begin(claimed, asked_at, Audience(tokens=self._shows_tokens))

    def _on_free(self) -> None:
        if self._queue.backlog:
            self._queue.wake()


def flow_runner_app(config: RuntimeConfig) -> serve.Application:
    """FlowRunner bound to the configuration, with its limits and autoscaling (see docs/operations.md)."""
    deployment: Any = serve.deployment(FlowRunner)
    application: serve.Application = deployment.options(
        name=DEPLOYMENT,
        max_ongoing_requests=config.runner_max_ongoing + config.runner_max_queued,
        max_queued_requests=config.runner_max_queued,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1.0),
        graceful_shutdown_timeout_s=config.runner_drain_s + HAND_OVER_S + CLOSE_S,
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
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=RunnerScalingPolicy, policy_kwargs={"slots": config.runner_max_ongoing}
            ),
        ),
    ).bind(config.model_dump_json())
    return application
