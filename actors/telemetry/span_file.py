"""Spans as JSON lines in one file that all processes of a machine share; for tests and small machines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from actors.telemetry.redaction import Redactor


class SpanFile(SpanExporter):
    """One span a line: name, trace_id, span_id, parent_id, start, end (seconds), status, attributes, service.

    A batch is one append of whole lines, so that processes do not cut into each other.
    """

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self._path = path
        self._redactor = redactor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append; a failing disk loses spans and never a request."""
        lines = "".join(json.dumps(self._line(span)) + "\n" for span in spans)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, lines.encode())
            finally:
                os.close(descriptor)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held open."""

    def _line(self, span: ReadableSpan) -> dict[str, object]:
        context = span.get_span_context()
        assert context is not None
        return {
            "name": span.name,
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
            "start": (span.start_time or 0) / 1e9,
            "end": (span.end_time or 0) / 1e9,
            "status": span.status.status_code.name,
            "attributes": self._redactor.value(dict(span.attributes or {})),
            "service": span.resource.attributes.get("service.name"),
        }
