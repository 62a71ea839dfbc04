"""The ModelReplica deployment: one engine in one Serve replica, one Serve application a model."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig

from actors.autoscaling import ModelScalingPolicy, replica_metrics
from actors.engines.coalescing import StreamItem, coalesce, interval_for
from actors.engines.table import engine_of, make_engine
from actors.gpu import GpuReport, gpu_slots, read_gpus, vram_slots
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.tracing import start_span
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Engine, EngineCall, EngineResult
from registries.specs import ModelSpec

DEPLOYMENT = "ModelReplica"
DRAIN_TIMEOUT_S = 20.0
RETRY_AFTER_S = 1.0
# A missing folder stays missing: a second try is for a machine that was short of memory for a moment.
CONSTRUCTOR_TRIES = 2
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class ModelReplica:
    """Loads one registry entry's engine and answers its calls.

    Cancelling a request at its handle cancels it here and frees the engine's slot.
    """

    async def __init__(self, spec: ModelSpec, config: RuntimeConfig) -> None:  # type: ignore[misc]
        self._metrics = open_telemetry(config, "model_replica").metrics
        self.spec = spec
        self.config = config
        self._streams = 0
        self._engine: Engine = make_engine(spec, config)
        try:
            await self._engine.start()
        except BaseException:
            await self._engine.shutdown()
            raise
        self._gpus: GpuReport = read_gpus()
        # On the object, not on the class: Serve awaits it when it stops a replica, while Python's collector,
        # which looks at the class, would call a coroutine function that nobody awaits.
        setattr(self, "__del__", self._close)  # noqa: B010

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer."""
        with start_span("engine.complete", call.traceparent, self._span(call)):
            return await self._engine.complete(call)

    async def stream(self, call: EngineCall) -> AsyncGenerator[list[StreamItem], None]:
        """Lists of chunks, coalesced by time and load; the last one ends in the EngineResult."""
        self._streams += 1
        try:
            with start_span("engine.stream", call.traceparent, self._span(call)):
                lists = coalesce(self._engine.stream(call), lambda: interval_for(self._streams))
                async with aclosing(lists):
                    async for items in lists:
                        yield items
        finally:
            self._streams -= 1

    async def abort(self, request_id: str) -> None:
        """Free the slot of this call, if it runs in this replica."""
        await self._engine.abort(request_id)

    async def status(self) -> dict[str, Any]:
        """Model, engine and what the engine is doing; for /api/system."""
        return {
            "model": self.spec.key,
            "provider": self.spec.provider,
            "engine": engine_of(self.spec, self.config),
            "load_time_s": getattr(self._engine, "load_time_s", 0.0),
            "pid": os.getpid(),
            "streams": self._streams,
            "gpus": [asdict(device) for device in self._gpus.devices],
            **asdict(self._engine.stats()),
        }

    async def check_health(self) -> None:
        """The engine makes a token, or has made some since the last check."""
        await self._engine.check_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The engine's queue and KV use, and where one more replica fits; for ModelScalingPolicy."""
        stats = asdict(self._engine.stats())
        if not self._gpus.devices or self.spec.min_vram_gb <= 0:
            return replica_metrics(stats, 0)
        self._gpus = read_gpus()
        self._metrics.record_vram(self._gpus.devices)
        fits = vram_slots(self.spec.min_vram_gb, self.config.max_vram_usage_gb, self._gpus)
        num_gpus = self.spec.scaling.num_gpus or 0.0
        return replica_metrics(stats, room(fits, num_gpus, *_free_gpus()) if num_gpus > 0 else fits)

    def _span(self, call: EngineCall) -> dict[str, Any]:
        return {
            "gen_ai.request.model": self.spec.key,
            "gen_ai.request.max_tokens": call.max_tokens,
            "parley.request_id": call.request_id,
            "parley.engine": self.spec.engine,
        }

    async def _close(self) -> None:
        await self._engine.drain(DRAIN_TIMEOUT_S)
        await self._engine.shutdown()


def _free_gpus() -> tuple[dict[str, float], str]:
    """GPUs that nobody has reserved, by node, and the id of this node."""
    import ray
    from ray._private.state import available_resources_per_node

    nodes = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {
        node: free.get("GPU", 0.0) for node, free in nodes.items()
    }, ray.get_runtime_context().get_node_id()


def room(fits_here: int, num_gpus: float, free_gpus: Mapping[str, float], here: str) -> int:
    """How many more replicas the cluster can place, as a replica on the node ``here`` knows it.

    Ray places by GPUs that nobody has reserved, however much memory a reserved one has left; memory is known
    of this node alone (``fits_here`` replicas).
    """
    slots = {node: gpu_slots(free, num_gpus) for node, free in free_gpus.items()}
    return min(fits_here, slots.pop(here, 0)) + sum(slots.values())


def model_app_name(key: str) -> str:
    """Name of the Serve application of that model."""
    return "model-" + _UNSAFE.sub("_", key)


def build_model_app(spec: ModelSpec, config: RuntimeConfig) -> serve.Application:
    """One Serve application (route_prefix None) with the replicas that ``spec.scaling`` allows.

    ``spec`` is a placed one (see ``placed_model``); without that no GPU is reserved for it.
    """
    replica: Any = serve.deployment(ModelReplica)
    application: serve.Application = replica.options(**deployment_options(spec)).bind(spec, config)
    return application


def deployment_options(spec: ModelSpec) -> dict[str, Any]:
    """Serve's options: limits, 429 with Retry-After when full, scaling by our policy."""
    scaling = spec.scaling
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        "ray_actor_options": {"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus or 0},
        "max_ongoing_requests": scaling.max_ongoing_requests,
        "max_queued_requests": scaling.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
        "health_check_period_s": 5,
        # an engine whose every core is busy with a long prompt is slow, not dead
        "health_check_timeout_s": 60,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": DRAIN_TIMEOUT_S + 10,
        "max_constructor_retry_count": CONSTRUCTOR_TRIES,
    }
    if scaling.max_replicas <= scaling.min_replicas:
        return {**options, "num_replicas": scaling.max_replicas}
    return {**options, "autoscaling_config": autoscaling_config(spec)}


def autoscaling_config(spec: ModelSpec) -> AutoscalingConfig:
    """Serve's configuration around our policy; figures are a second apart and two seconds young."""
    scaling = spec.scaling
    return AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        initial_replicas=scaling.min_replicas,
        target_ongoing_requests=scaling.target_ongoing_requests,
        metrics_interval_s=1.0,
        look_back_period_s=2.0,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=ModelScalingPolicy, policy_kwargs={"needs_vram": spec.min_vram_gb > 0}
        ),
    )
