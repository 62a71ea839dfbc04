"""The Ingress deployment: the front door inside Ray Serve."""

from __future__ import annotations

import importlib.metadata
import os
import time
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from actors.gateway.open_gateway import open_gateway
from actors.heap import settle_heap
from actors.running.owner_name import owner_name
from actors.running.ports import SystemClock
from actors.runtime import readiness
from actors.stores.open_store import open_store
from actors.telemetry.logs import flush_logs
from actors.telemetry.metrics_page import metrics_page
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.traced_generator import TracedGateway
from actors.telemetry.tracing import current_traceparent, flush_tracing
from flows.builder import FlowGraphs
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog
from serve_app.http_api import create_api, max_watchers
from serve_app.keyed_calls import KeyedCalls
from serve_app.ray_cluster import RayCluster
from serve_app.ray_runner import RayRunner
from serve_app.run_dispatch import RunDispatch
from serve_app.run_ids import uuid7
from serve_app.services import Services

DEPLOYMENT = "Ingress"
DISTRIBUTION = "parley-runtime"
HEADROOM_REQUESTS = 64
"""What Serve lets in beyond our own admission: refusals, health and metrics must pass a full house."""
SERVE_QUEUE_FLOOR = 1024
"""Serve also counts a request as queued while it is being handed over: a small limit refuses mere bursts."""


class FrontDoor:
    """One replica. Opens what the routes stand on in its own event loop."""

    async def __init__(self, config_json: str, runner: Any) -> None:  # type: ignore[misc]
        config = RuntimeConfig.model_validate_json(config_json)
        telemetry = open_telemetry(config, "ingress")
        catalog = load_catalog(config)
        self._store = await open_store(config, "ingress", telemetry.metrics.record_unheld_end)
        self._gateway = await open_gateway(
            config, catalog, observer=telemetry.observer, traceparent=current_traceparent
        )
        self._runs = RunDispatch(
            config, catalog, self._store, RayRunner(runner), SystemClock(), telemetry.metrics, new_run_id
        )
        gateway = TracedGateway(self._gateway)
        self._calls = KeyedCalls(
            self._store,
            gateway,
            telemetry.metrics,
            owner_name(config),
            config.default_deadline_s,
            config.max_ongoing_requests,
        )
        self._services = Services(
            config=config,
            catalog=catalog,
            gateway=gateway,
            calls=self._calls,
            runs=self._runs,
            store=self._store,
            cluster=RayCluster(lambda: readiness(config, catalog), lambda: metrics_page(config)),
            metrics=telemetry.metrics,
            clock=SystemClock(),
            graphs=FlowGraphs(catalog),
            version=importlib.metadata.version(DISTRIBUTION),
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        # Serve's own middleware already answers with X-Request-ID.
        api = create_api(self._services, echo_request_id=False)
        settle_heap()
        return api

    async def __del__(self) -> None:
        # Serve awaits it when it stops a replica, also one whose __init__ failed half-way.
        if hasattr(self, "_services"):
            await self._runs.aclose()
            await self._calls.aclose()
            await self._gateway.aclose()
            await self._store.close()
            flush_tracing()
            flush_logs()


def new_run_id() -> str:
    """A fresh run id, sorted by time."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def ingress_deployment(config: RuntimeConfig) -> serve.Deployment:
    """The deployment with its limits.

    Our Admission layer refuses first and in our shape; Serve's queue limit stays behind it as the
    backstop. Serve's access log is off because ours has the same line with more in it.
    """
    configured = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=config.max_ongoing_requests + max_watchers(config) + HEADROOM_REQUESTS,
        max_queued_requests=max(config.max_queued_requests, SERVE_QUEUE_FLOOR),
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1.0),
        ray_actor_options={"num_cpus": 0.5},
        logging_config=LoggingConfig(enable_access_log=False),
        health_check_period_s=5.0,
        health_check_timeout_s=10.0,
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=config.ingress_max_replicas,
            target_ongoing_requests=max(1.0, config.max_ongoing_requests * 0.7),
        ),
    )
    deployment: serve.Deployment = configured(serve.ingress()(FrontDoor))
    return deployment
