"""The front door on the real cluster, behind HAProxy."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import httpx
import pytest

from tests.integration.front_door_client import QUESTION, running_calls, wait_for, waiting_client
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster
from tests.unit.serve_app.front_door import events_of


def test_direct_mode_whole_and_streamed(http: httpx.Client) -> None:
    ask = {"prompt": QUESTION, "model_key": "fast"}
    whole = http.post("/api/inference", json=ask, headers={"x-request-id": "mine-1"})
    streamed = http.post("/api/inference", json={**ask, "stream": True})
    body = whole.json()
    assert whole.status_code == 200 and body["text"] == "The answer is 84."
    assert body["model_resolved"] == "fast" and body["request_id"] == "mine-1"
    assert whole.headers.get_list("x-request-id") == ["mine-1"]
    assert whole.headers["x-frame-options"] == "DENY"
    events = events_of(streamed.text)
    tokens = "".join(data["text"] for name, _, data in events if name == "token")
    assert events[-1][0] == "result" and events[-1][2]["text"] == tokens == body["text"]


@pytest.mark.parametrize("flow", ["linear", "challenge", "multi_perspective"])
def test_flows_whole_and_streamed(http: httpx.Client, flow: str) -> None:
    ask = {"prompt": QUESTION, "flow_type": flow}
    whole = http.post("/api/orchestrate", json=ask)
    streamed = http.post("/api/orchestrate", json={**ask, "stream": True})
    body = whole.json()
    assert whole.status_code == 200 and body["status"] == "completed" and body["answer"], body
    assert body["flow"] == flow and body["nodes"] and body["usage"]["completion_tokens"] > 0
    events = events_of(streamed.text)
    names = [name for name, _, _ in events]
    assert names[0] == "run.queued" and names[-1] == "run.completed"
    assert {"node.started", "node.completed"} <= set(names)
    durable = [int(seq) for name, seq, _ in events if name != "node.token" and seq is not None]
    assert durable == list(range(1, len(durable) + 1))
    assert events[-1][2]["data"]["result"]["answer"] == body["answer"]
    stored = http.get(f"/api/runs/{body['run_id']}").json()
    assert stored["status"] == "completed" and stored["result"]["answer"] == body["answer"]


def test_bad_input_gets_one_clear_error_each(http: httpx.Client) -> None:
    for content, status, told in (
        (b"", 400, "empty"),
        (b'{"prompt": "\xff"}', 400, "UTF-8"),
        (b"nonsense", 400, "JSON"),
        (b'{"prompt": "hi", "max_tokens": -1}', 400, "max_tokens"),
        (b'{"prompt": "hi", "model_key": "fsat"}', 404, "Did you mean 'fast'?"),
        (b"x" * 8_000_001, 413, "8000000"),
    ):
        answer = http.post("/api/inference", content=content)
        assert answer.status_code == status and told in answer.json()["error"]["message"]
    assert http.get("/nowhere").status_code == 404
    assert http.get("/api/inference").json()["error"]["code"] == "method_not_allowed"
    assert http.get("/api/health").status_code == 200


def test_without_the_key(cluster: RunningCluster) -> None:
    with httpx.Client(base_url=cluster.base_url, trust_env=False) as client:
        assert client.post("/api/inference", json={"prompt": "hi"}).status_code == 401
        assert client.get("/metrics", headers={"authorization": "Bearer no"}).status_code == 401
        assert set(client.get("/api/ready").json()) == {"status"}
        assert client.get("/docs").status_code == 200
        assert client.get("/openapi.json").json()["paths"]


def test_facts(http: httpx.Client) -> None:
    ready = http.get("/api/ready").json()
    assert ready["status"] == "ready" and ready["parts"]["fast"]["state"] == "ready"
    states = {model["key"]: model["state"] for model in http.get("/api/models").json()["models"]}
    assert states["fast"] == "ready"
    system = http.get("/api/system").json()
    assert system["deployments"]["parley"]["deployments"]["Ingress"]["replicas"] == {"RUNNING": 1}
    wait_for(lambda: bool(runner_reports(http)), 20)
    assert runner_reports(http)[0]["max_runs"] > 0
    assert system["machine"]["memory_total_gb"] > 0 and "breakers" in system["gateway"]
    assert http.post("/api/inference", json={"prompt": "hi", "model_key": "fast"}).status_code == 200
    wait_for(lambda: "provider_attempts_total" in http.get("/metrics").text, 20)
    assert http.get("/api/flows/challenge").json()["mermaid"]


def runner_reports(http: httpx.Client) -> list[dict[str, Any]]:
    """What the runners said of themselves; none while one of them is too busy to."""
    app = http.get("/api/system").json()["deployments"]["parley"]
    return list(app["deployments"]["FlowRunner"].get("reports", []))


def test_a_streaming_client_that_leaves_frees_the_engine(http: httpx.Client) -> None:
    ask = {"prompt": "go on", "model_key": "endless", "stream": True}
    with http.stream("POST", "/api/inference", json=ask) as answer:
        # Held: httpx closes the connection when the iterator is collected.
        lines = answer.iter_lines()
        assert next(lines) == "event: token"
        wait_for(lambda: running_calls(http, "endless") == 1, 20)
    wait_for(lambda: running_calls(http, "endless") == 0, 10)


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_waiting_client_that_leaves_frees_the_engine(
    cluster: RunningCluster, http: httpx.Client, pause_s: float
) -> None:
    ask = {"prompt": "go on", "model_key": "endless"}
    # Most clients send the body in a packet of its own; see _BALANCE in actors/ray_flags.py.
    with waiting_client(cluster, "/api/inference", ask, pause_s=pause_s):
        wait_for(lambda: running_calls(http, "endless") == 1, 20)
    wait_for(lambda: running_calls(http, "endless") == 0, 10)


@pytest.mark.parametrize(("on_disconnect", "end"), [("continue", "completed"), ("cancel", "cancelled")])
def test_a_client_that_leaves_its_run(http: httpx.Client, on_disconnect: str, end: str) -> None:
    ask = {
        "prompt": QUESTION,
        "flow_type": "challenge",
        "models": {"creator": "slow-start"},
        "on_disconnect": on_disconnect,
        "stream": True,
    }
    with http.stream("POST", "/api/orchestrate", json=ask) as answer:
        lines = answer.iter_lines()
        data = next(line for line in lines if line.startswith("data: "))
        run_id = json.loads(data.removeprefix("data: "))["run_id"]
    wait_for(lambda: http.get(f"/api/runs/{run_id}").json()["status"] == end, 20)


async def test_a_full_house_refuses_within_100_ms(cluster: RunningCluster, http: httpx.Client) -> None:
    limit = cluster.config.max_ongoing_requests
    ask = {"prompt": "hi", "model_key": "patient"}
    url = f"{cluster.base_url}/api/inference"
    async with aiohttp.ClientSession(
        headers=cluster.headers, connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def call() -> int:
            async with session.post(url, json=ask) as answer:
                await answer.read()
                return answer.status

        async def refused() -> tuple[float, Any]:
            started = time.monotonic()
            async with session.post(url, json=ask) as answer:
                body = await answer.json()
                assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
            return time.monotonic() - started, body

        async def is_full() -> bool:
            """One call more is turned away; else it is let in, and waits with the others."""
            one_more = asyncio.create_task(call())
            await asyncio.wait({one_more}, timeout=1.0)
            if one_more.done():
                return one_more.result() == 429
            calls.append(one_more)
            return False

        # Its replica has one slot more than it is asked for, so that it still tells how many it has.
        calls = [asyncio.create_task(call()) for _ in range(limit - 1)]

        def almost_full() -> bool:
            return running_calls(http, "patient") == limit - 1

        await until(lambda: asyncio.to_thread(almost_full), 8, every_s=0.1)
        await until(is_full, 8, every_s=0.1)
        times = []
        for _ in range(10):
            took, body = await refused()
            assert body["error"]["code"] == "capacity"
            times.append(took)
        async with session.get(f"{cluster.base_url}/api/health") as answer:
            assert answer.status == 200
        statuses = await asyncio.gather(*calls)
    assert sorted(times)[5] <= paced(0.05), times
    assert statuses == [200] * limit
