"""Logs, traces and metrics of one Ray process, set up together."""

from __future__ import annotations

from dataclasses import dataclass

from actors.telemetry.gateway_telemetry import GatewayTelemetry
from actors.telemetry.logs import configure_logging
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import RaySink
from actors.telemetry.tracing import configure_tracing
from registries.contracts.config import RuntimeConfig


@dataclass(frozen=True, slots=True)
class ProcessTelemetry:
    """What a process measures with. ``observer`` is the gateway's."""

    metrics: Metrics
    observer: GatewayTelemetry


def open_telemetry(config: RuntimeConfig, component: str) -> ProcessTelemetry:
    """Configure this Ray process; once, before anything logs."""
    configure_logging(config, component)
    configure_tracing(config, component)
    metrics = Metrics(RaySink(), component)
    return ProcessTelemetry(metrics, GatewayTelemetry(metrics))
