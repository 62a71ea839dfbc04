"""The RemoteAdapter deployment: the only processes that import litellm."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import structlog
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from actors.engines.coalescing import StreamItem, coalesce, interval_for
from actors.engines.litellm_endpoints import litellm_endpoints
from actors.engines.litellm_engine import CallFacts, LitellmEngine
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.tracing import start_span
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.loader import load_catalog

APP_NAME = "remote-adapter"
DEPLOYMENT = "RemoteAdapter"
DRAIN_TIMEOUT_S = 20.0
# litellm takes 2 to 4 ms of CPU a call: beyond this number of calls under way another process is worth it.
TARGET_ONGOING = 128
MAX_REPLICAS = 4


class RemoteAdapter:
    """Answers the calls of every litellm entry of the catalog.

    ``EngineCall.model`` is litellm's name; ``model_key`` says which entry's URL and key are meant.
    """

    async def __init__(self, config: RuntimeConfig) -> None:  # type: ignore[misc]
        open_telemetry(config, "remote_adapter")
        self._streams = 0
        endpoints = litellm_endpoints(load_catalog(config).models, config)
        self._engine = LitellmEngine(endpoints, on_call=log_call)
        await self._engine.start()
        # see ModelReplica: Serve awaits it, the collector must not find it
        setattr(self, "__del__", self._close)  # noqa: B010

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer."""
        with start_span("engine.complete", call.traceparent, {"gen_ai.request.model": call.model}):
            return await self._engine.complete(call)

    async def stream(self, call: EngineCall) -> AsyncGenerator[list[StreamItem], None]:
        """Lists of chunks; the last one ends in the EngineResult."""
        self._streams += 1
        try:
            with start_span("engine.stream", call.traceparent, {"gen_ai.request.model": call.model}):
                lists = coalesce(self._engine.stream(call), lambda: interval_for(self._streams))
                async with aclosing(lists):
                    async for items in lists:
                        yield items
        finally:
            self._streams -= 1

    async def abort(self, request_id: str) -> None:
        """Close the connection of this call, if it runs here."""
        await self._engine.abort(request_id)

    async def status(self) -> dict[str, Any]:
        """Calls under way."""
        return {"engine": "litellm", "streams": self._streams, **asdict(self._engine.stats())}

    async def check_health(self) -> None:
        """litellm is loaded."""
        await self._engine.check_health()

    async def _close(self) -> None:
        await self._engine.drain(DRAIN_TIMEOUT_S)
        await self._engine.shutdown()


def log_call(facts: CallFacts) -> None:
    """What litellm's callback tells; the gateway that asked logs the try as ``provider_call``."""
    structlog.get_logger("actors.remote_adapter").info("litellm_call", **facts)


def build_remote_adapter_app(config: RuntimeConfig) -> serve.Application:
    """The Serve application ``remote-adapter`` (route_prefix None)."""
    adapter: Any = serve.deployment(RemoteAdapter)
    application: serve.Application = adapter.options(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1.0),
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=MAX_REPLICAS,
            target_ongoing_requests=TARGET_ONGOING,
            upscale_delay_s=5,
            downscale_delay_s=120,
        ),
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S + 10,
    ).bind(config)
    return application
