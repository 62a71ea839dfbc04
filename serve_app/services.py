"""What the routes stand on, as protocols, so that they run without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from actors.stores.store import Store
from flows.builder import FlowGraphs
from flows.ports import Clock, Generator
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from serve_app.keyed_calls import KeyedCalls
from serve_app.run_dispatch import RunDispatch
from serve_app.run_ports import RunMetrics


class Gateway(Generator, Protocol):
    """Models (actors.gateway.provider_gateway.ProviderGateway)."""

    def snapshot(self) -> Mapping[str, Any]:
        """Breakers and load as this process sees them."""
        ...


class Metrics(RunMetrics, Protocol):
    """What the front door counts (actors.telemetry.metrics.Metrics)."""

    def record_error(self, code: str) -> None: ...


class Cluster(Protocol):
    """Facts about the whole cluster; may be a second old, never block the event loop."""

    async def readiness(self) -> Mapping[str, Any]:
        """``{"status": "ready"|"loading"|"failed", "parts": {name: {"state", "reason"}}}``."""
        ...

    async def deployments(self) -> Mapping[str, Any]:
        """Replicas, states and queues of every deployment, by application."""
        ...

    async def machine(self) -> Mapping[str, Any]:
        """CPU, memory and VRAM of the nodes."""
        ...

    async def metrics_page(self) -> str:
        """Prometheus text of the whole cluster."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use. ``graphs`` are the compiled flows."""

    config: RuntimeConfig
    catalog: Catalog
    gateway: Gateway
    calls: KeyedCalls
    runs: RunDispatch
    store: Store
    cluster: Cluster
    metrics: Metrics
    clock: Clock
    graphs: FlowGraphs
    version: str
