"""Spans run → node → model call in one trace across processes, and one id through every log."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.test_flow_runner import collect, order
from tests.polling import until
from tests.runtime_cluster import RunningCluster

Span = dict[str, Any]


def trace(home: Path, trace_id: str) -> list[Span]:
    path = home / "spans.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [span for line in lines if (span := json.loads(line))["trace_id"] == trace_id]


def is_whole(spans: list[Span]) -> bool:
    """One run, four nodes, and as many model calls, each with its engine's span."""
    found = Counter(span["name"].partition(".")[0] for span in spans)
    return found["run"] >= 1 and all(found[name] >= 4 for name in ("node", "chat", "engine"))


async def test_a_run_is_one_trace_across_processes(cluster: RunningCluster, runner: Any) -> None:
    trace_id = uuid.uuid4().hex
    asked = order("multi_perspective").model_copy(update={"traceparent": f"00-{trace_id}-{'ab' * 8}-01"})
    await collect(runner, asked)
    # Several processes write them, each in its own time.
    await until(lambda: is_whole(trace(cluster.home, trace_id)), 10)
    spans = trace(cluster.home, trace_id)
    by_id = {span["span_id"]: span for span in spans}
    run = next(span for span in spans if span["name"] == "run")
    nodes = [span for span in spans if span["name"] == "node"]
    chats = [span for span in spans if span["name"] == "chat"]
    assert run["parent_id"] == "ab" * 8
    assert {span["attributes"]["workflow.node"] for span in nodes} == {
        "security", "performance", "ux", "synthesizer",
    }  # fmt: skip
    assert all(span["parent_id"] == run["span_id"] for span in nodes)
    for chat in chats:
        parent = by_id[chat["parent_id"]]
        assert parent["name"] == "node"
        assert parent["attributes"]["workflow.node"] == chat["attributes"]["workflow.node"]
        assert run["start"] <= chat["start"] <= chat["end"] <= run["end"] + 0.5
    assert {"parley-expert", "parley-flow_runner"} <= {span["service"] for span in spans}
    for span in (run, *nodes):
        assert span["attributes"]["workflow.type"] == "multi_perspective"
        assert span["attributes"]["workflow.id"] == asked.run_id
    engines = [span for span in spans if span["name"].startswith("engine.")]
    assert all(by_id[span["parent_id"]]["name"] == "chat" for span in engines)


async def test_one_request_id_is_in_every_process_s_log(cluster: RunningCluster) -> None:
    request_id = f"req-{uuid.uuid4().hex}"
    body = {"flow_type": "multi_perspective", "prompt": "What is 48 + 37?"}
    headers = {**cluster.headers, "X-Request-ID": request_id}
    session = aiohttp.ClientSession(cluster.base_url, headers=headers)
    async with session, session.post("/api/orchestrate", json=body) as answer:
        assert (await answer.json())["request_id"] == request_id
    for component in ("ingress", "flow_runner", "expert"):
        await until(lambda component=component: request_id in cluster.logs(component), 10)  # type: ignore[misc]
    for line in cluster.logs("expert").splitlines():
        if request_id in line:
            assert json.loads(line)["run_id"]


def test_no_secret_is_in_any_log_or_span(cluster: RunningCluster) -> None:
    for path in (*(cluster.home / "logs").iterdir(), cluster.home / "spans.jsonl"):
        if path.exists():
            assert cluster.api_key not in path.read_text(errors="replace"), path
