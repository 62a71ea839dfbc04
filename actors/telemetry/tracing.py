"""OpenTelemetry spans run → node → model call; W3C context travels in our own envelopes.

Ray's own tracing skips generator methods, which our streams are: contexts go along as ``traceparent``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.telemetry.redaction import Redactor
from actors.telemetry.span_file import SpanFile
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

TRACER = "parley"
EXPORT_DELAY_MS = 250
"""How long finished spans wait to leave together; a killed process loses at most these."""


def configure_tracing(config: RuntimeConfig, component: str) -> None:
    """Give this process its tracer; without otlp_endpoint and trace_file it stays a no-op. Once a process.

    Raises ValidationError when otlp_endpoint is set and the exporter is not installed.
    """
    exporters = _exporters(config)
    if not exporters or isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    attributes = {"service.name": f"parley-{component}", "service.instance.id": config.instance}
    provider = TracerProvider(resource=Resource.create(attributes))
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_DELAY_MS))
    trace.set_tracer_provider(provider)


def is_tracing() -> bool:
    """Whether spans of this process are recorded by anybody."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def start_span(
    name: str, traceparent: str | None = None, attributes: Mapping[str, Any] | None = None
) -> Iterator[Span]:
    """A span that is current inside the block; an exception is recorded by its type and re-raised.

    ``traceparent`` makes it the child of a span in another process; else the current span is the parent.
    """
    if not traceparent and not is_tracing():
        # The no-op span would be the current one again, at ten times the price.
        yield trace.get_current_span()
        return
    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({"traceparent": traceparent}) if traceparent else None
    kept = {k: v for k, v in (attributes or {}).items() if v is not None}
    tracer = trace.get_tracer(TRACER)
    with tracer.start_as_current_span(
        name, context, attributes=kept, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            mark_error(span, type(error).__name__)
            raise


def current_traceparent() -> str | None:
    """The W3C header of the current span, to put into an envelope; None outside any span."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def mark_error(span: Span, error_type: str) -> None:
    """Say on the span that it failed; the type only, messages may hold what users wrote."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))


def flush_tracing(timeout_s: float = 2.0) -> None:
    """Hand over what has not left yet; blocks at most ``timeout_s``."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(int(timeout_s * 1000))


def _exporters(config: RuntimeConfig) -> list[SpanExporter]:
    exporters: list[SpanExporter] = []
    if config.trace_file:
        exporters.append(SpanFile(Path(config.home) / config.trace_file, Redactor.of(config)))
    if config.otlp_endpoint:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            message = "otlp_endpoint is set, but the exporter is missing: pip install 'parley-runtime[otel]'"
            raise ValidationError(message, param="otlp_endpoint") from error
        # As OpenTelemetry specifies for a base address; the exporter's argument is the whole one.
        exporters.append(OTLPSpanExporter(endpoint=f"{config.otlp_endpoint.rstrip('/')}/v1/traces"))
    return exporters
