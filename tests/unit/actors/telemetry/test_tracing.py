from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


EXPORTING = """
import sys
from actors.telemetry.tracing import configure_tracing, flush_tracing, start_span
from registries.contracts.config import RuntimeConfig
configure_tracing(RuntimeConfig(home=sys.argv[2], otlp_endpoint=sys.argv[1]), "ingress")
with start_span("told-to-the-collector"):
    pass
flush_tracing(10)
"""


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


def test_spans_reach_a_collector_by_its_base_address(tmp_path: Path) -> None:
    """In a process of its own: a process gets its tracer once."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="needs the extra otel"
    )
    received: queue.Queue[tuple[str, bytes]] = queue.Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {**os.environ, "OTEL_EXPORTER_OTLP_COMPRESSION": "none", "NO_PROXY": "*"}
        base = f"http://127.0.0.1:{server.server_port}"
        subprocess.run(
            [sys.executable, "-c", EXPORTING, base, str(tmp_path)], check=True, timeout=60, env=env
        )
        server.shutdown()
    path, body = received.get(timeout=5)
    assert path == "/v1/traces" and b"told-to-the-collector" in body and b"parley-ingress" in body


def test_a_disk_that_fails_loses_spans_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    exporter = SpanFile(tmp_path / "file" / "spans.jsonl", Redactor())
    assert exporter.export([]).name == "FAILURE"
