"""Where measurements go: Ray's per-node agents, a Prometheus registry, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actors.telemetry.families import FAMILIES, Family
from actors.telemetry.series_keeper import SeriesKeeper


class MetricSink(Protocol):
    """Takes one measurement of a family; cheap, never raises for a healthy family name."""

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Counters add ``value``, gauges take it, histograms observe it. KeyError for an unknown name."""
        ...


class NullSink:
    """Drops everything; for processes that are not observed."""

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Only checks the name."""
        FAMILIES[name]


class RaySink:
    """ray.util.metrics: this node's agent adds up the processes and exports the names with ``ray_`` in front.

    Only inside a Ray process. Metrics are made at their first use: an unused family costs nothing.
    Counters and gauges reach Ray within a second, see SeriesKeeper.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._series = SeriesKeeper()

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Hand the value to the worker's metric buffer, or to the next report."""
        family = FAMILIES[name]
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = _ray_metric(family)
        if family.kind == "counter":
            self._series.add(name, metric, value, labels)
        elif family.kind == "gauge":
            self._series.set(name, metric, value, labels)
        else:
            metric.observe(value, dict(labels))


class PrometheusSink:
    """prometheus_client in a registry of its own; for processes without Ray."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add, set or observe."""
        family = FAMILIES[name]
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = _prometheus_metric(family, self.registry)
        child = metric.labels(**labels) if family.labels else metric
        if family.kind == "counter":
            child.inc(value)
        elif family.kind == "gauge":
            child.set(value)
        else:
            child.observe(value)

    def page(self) -> str:
        """The text exposition format."""
        return generate_latest(self.registry).decode()


def _ray_metric(family: Family) -> Any:
    from ray.util import metrics

    if family.kind == "counter":
        return metrics.Counter(family.name, family.help, family.labels)
    if family.kind == "gauge":
        return metrics.Gauge(family.name, family.help, family.labels)
    return metrics.Histogram(family.name, family.help, list(family.buckets), family.labels)


def _prometheus_metric(family: Family, registry: CollectorRegistry) -> Any:
    if family.kind == "counter":
        return Counter(family.name, family.help, family.labels, registry=registry)
    if family.kind == "gauge":
        return Gauge(family.name, family.help, family.labels, registry=registry)
    return Histogram(family.name, family.help, family.labels, registry=registry, buckets=family.buckets)
