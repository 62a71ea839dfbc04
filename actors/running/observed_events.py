"""The sink that nodes in a runner see: every event also feeds spans, metrics and the ledger of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.telemetry.metrics import Metrics
from actors.telemetry.tracing import TRACER, is_tracing, mark_error
from flows.ports import EventSink
from registries.contracts.runs import NODE_ENDS, EventType, NodeResult


class ObservedEvents:
    """EventSink around a run's log.

    ``node.started`` is emitted inside the node's own task, so the span made there becomes the current one of
    that task: model calls are its children without flows knowing of spans. ``results`` are the ended visits,
    which a run that is cut off still shows.
    """

    def __init__(
        self, inner: EventSink, metrics: Metrics, flow: str, run_id: str, traceparent: str | None
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._flow = flow
        self._run_id = run_id
        self._run_context = TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""})
        self._spans: dict[str, Span] = {}
        self.results: list[NodeResult] = []

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        """Observe, then pass on; see flows.ports.EventSink."""
        if type == "node.started" and node is not None:
            self._started(node, data)
        elif type in NODE_ENDS and node is not None:
            self._ended(node, data)
        await self._inner.emit(type, node, data, attempt)

    def close(self) -> None:
        """End the spans of nodes that were cut off."""
        for span in self._spans.values():
            mark_error(span, "cut_off")
            span.end()
        self._spans.clear()

    def _started(self, node: str, data: Mapping[str, Any]) -> None:
        structlog.contextvars.bind_contextvars(node_id=node)
        if not is_tracing():
            # The node's task has the run's context already, and a no-op span is that context again.
            return
        attributes: dict[str, str | int] = {
            "workflow.id": self._run_id,
            "workflow.type": self._flow,
            "workflow.node": node,
            "workflow.visit": int(data.get("visit", 1)),
        }
        span = trace.get_tracer(TRACER).start_span("node", self._run_context, attributes=attributes)
        self._spans[node] = span
        # Not detached: it belongs to the node's task and ends with it, or with the task's next node.
        context.attach(trace.set_span_in_context(span))

    def _ended(self, node: str, data: Mapping[str, Any]) -> None:
        span = self._spans.pop(node, None)
        result = _result(data)
        if result is None:
            if span is not None:
                span.end()
            return
        self.results.append(result)
        self._metrics.record_node(self._flow, result)
        if span is not None:
            span.set_attribute("workflow.node.status", result.status)
            if result.error is not None:
                mark_error(span, result.error.code)
            span.end()


def _result(data: Mapping[str, Any]) -> NodeResult | None:
    """The visit that the event tells of; None for an event of another shape."""
    try:
        return NodeResult.model_validate(data)
    except pydantic.ValidationError:
        return None
