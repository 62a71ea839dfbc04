from __future__ import annotations

import json
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from actors.telemetry.redaction import Redactor
from actors.telemetry.span_file import SpanFile
from actors.telemetry.tracing import current_traceparent, start_span

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """The process's tracer writes here; providers are set once a process, processors can be added."""
    path = tmp_path / "spans.jsonl"
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(SpanFile(path, Redactor(["canary-secret"]))))
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_context_crosses_processes_by_its_header(spans: Path) -> None:
    with start_span("run", PARENT, {"workflow.id": "r", "nothing": None}), start_span("node"):
        header = current_traceparent()
    with start_span("elsewhere", header, {"note": "canary-secret"}):
        pass
    node, run, elsewhere = read(spans)
    assert run["trace_id"] == node["trace_id"] == elsewhere["trace_id"] == PARENT.split("-")[1]
    assert run["parent_id"] == PARENT.split("-")[2]
    assert node["parent_id"] == run["span_id"] and elsewhere["parent_id"] == node["span_id"]
    assert run["attributes"] == {"workflow.id": "r"}
    assert elsewhere["attributes"] == {"note": "[redacted]"}


def test_an_error_is_recorded_by_its_type_alone(spans: Path) -> None:
    with pytest.raises(ValueError, match="private"), start_span("run"):
        raise ValueError("private words")
    (span,) = read(spans)
    assert span["status"] == "ERROR" and span["attributes"] == {"error.type": "ValueError"}
    assert "private" not in spans.read_text()


def test_no_span_no_header(spans: Path) -> None:
    assert current_traceparent() is None


def test_a_disk_that_fails_loses_spans_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    exporter = SpanFile(tmp_path / "file" / "spans.jsonl", Redactor())
    assert exporter.export([]).name == "FAILURE"
