"""Durable runs over HTTP on the real cluster, behind HAProxy."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import aiohttp
import httpx
import pytest

from tests.integration.front_door_client import QUESTION, running_calls, wait_for
from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster
from tests.unit.serve_app.front_door import events_of

ASK = {"prompt": QUESTION, "flow_type": "challenge"}
SLOW = {**ASK, "models": {"creator": "slow-start"}}
"""Its first node takes some seconds."""
ENDED = ("completed", "failed", "cancelled")


def make(http: httpx.Client, **values: Any) -> str:
    answer = http.post("/api/runs", json={**ASK, **values})
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


def status_of(http: httpx.Client, run_id: str) -> str:
    status: str = http.get(f"/api/runs/{run_id}?log=false").json()["status"]
    return status


def ended(http: httpx.Client, run_id: str, within_s: float = 30) -> dict[str, Any]:
    wait_for(lambda: status_of(http, run_id) in ENDED, within_s)
    detail: dict[str, Any] = http.get(f"/api/runs/{run_id}").json()
    return detail


def seqs_of(events: list[tuple[str, str | None, Any]]) -> list[int]:
    return [int(seq) for name, seq, _ in events if name != "node.token" and seq is not None]


def test_a_background_run_reaches_its_end_by_itself(http: httpx.Client) -> None:
    run_id = make(http, conversation_id="runs-api")
    detail = ended(http, run_id)
    assert detail["status"] == "completed" and detail["answer"] and detail["attempts"] == 1
    log = detail["execution_log"]
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    assert (log[0]["type"], log[-1]["type"]) == ("run.queued", "run.completed")
    assert detail["usage"]["completion_tokens"] > 0 and detail["nodes"]
    listed = http.get("/api/runs", params={"conversation_id": "runs-api", "status": "completed"}).json()
    assert [row["run_id"] for row in listed["runs"]] == [run_id]


@pytest.mark.parametrize("mode", ["wait", "stream"])
def test_a_run_is_waited_for_or_streamed(http: httpx.Client, mode: str) -> None:
    answer = http.post("/api/runs", json={**ASK, "mode": mode})
    assert answer.status_code == 200
    if mode == "wait":
        assert answer.json()["status"] == "completed"
        return
    events = events_of(answer.text)
    assert (events[0][0], events[-1][0]) == ("run.queued", "run.completed")
    assert seqs_of(events) == list(range(1, len(seqs_of(events)) + 1))
    assert "node.token" in [name for name, _, _ in events]


def test_a_stream_is_taken_up_at_every_position(http: httpx.Client) -> None:
    run_id = make(http)
    last = len(ended(http, run_id)["execution_log"])
    for seen in range(last + 1):
        answer = http.get(f"/api/runs/{run_id}/events", headers={"last-event-id": str(seen)})
        assert seqs_of(events_of(answer.text)) == list(range(seen + 1, last + 1))


def test_events_of_a_run_under_way_come_within_moments(http: httpx.Client) -> None:
    run_id = make(http, **SLOW)
    delays = []
    with http.stream("GET", f"/api/runs/{run_id}/events") as answer:
        lines = answer.iter_lines()
        for line in lines:
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                delays.append(time.time() - event["time"])
                if event["type"] == "run.completed":
                    break
    # History comes first and is old; what comes live is not.
    assert sorted(delays[3:])[len(delays[3:]) // 2] < paced(0.25), delays


async def test_a_websocket_tells_a_run_to_its_end(cluster: RunningCluster, http: httpx.Client) -> None:
    run_id = make(http, **SLOW)
    url = f"{cluster.base_url.replace('http', 'ws', 1)}/ws/runs/{run_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_json({"type": "auth", "key": cluster.api_key})
        updates = [json.loads(message.data) async for message in socket]
        assert socket.close_code == 1000
    seqs = [
        event["seq"]
        for update in updates
        for event in update["execution_log"]
        if event["type"] != "node.token"
    ]
    assert seqs == list(range(1, len(seqs) + 1)) and updates[-1]["status"] == "completed"
    assert {update["type"] for update in updates} == {"run_update"}


@pytest.mark.parametrize(("run", "key", "code"), [("none", True, 4404), ("none", False, 4401)])
async def test_a_websocket_that_is_refused(cluster: RunningCluster, run: str, key: bool, code: int) -> None:
    url = f"{cluster.base_url.replace('http', 'ws', 1)}/ws/runs/{run}"
    headers = cluster.headers if key else {"X-API-Key": "wrong"}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        assert [message async for message in socket] == []
        assert socket.close_code == code


async def test_fifty_duplicates_at_once_are_one_run(cluster: RunningCluster) -> None:
    url, key = f"{cluster.base_url}/api/runs", str(uuid.uuid4())
    headers = {**cluster.headers, "Idempotency-Key": key}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(**change: Any) -> tuple[int, Any, bool]:
            async with session.post(url, json={**ASK, "mode": "wait", **change}) as answer:
                return answer.status, await answer.json(), "Idempotency-Replayed" in answer.headers

        answers = await asyncio.gather(*(post() for _ in range(50)))
        other = await post(prompt="another question")
    assert {status for status, _, _ in answers} == {200}
    assert len({body["run_id"] for _, body, _ in answers}) == 1
    assert sum(replayed for _, _, replayed in answers) == 49
    assert other[0] == 422 and other[1]["error"]["code"] == "idempotency_key_reused"


def test_cancelling_frees_the_engine(http: httpx.Client) -> None:
    run_id = make(http, models={"creator": "endless"})
    wait_for(lambda: running_calls(http, "endless") == 1, 30)
    answer = http.post(f"/api/runs/{run_id}/cancel")
    assert answer.status_code == 202 and answer.json()["status"] == "running"
    assert wait_for(lambda: running_calls(http, "endless") == 0, 10) <= paced(5)
    assert ended(http, run_id)["status"] == "cancelled"
    assert http.post(f"/api/runs/{run_id}/cancel").status_code == 200


def test_a_run_that_ended_can_be_rated_and_forked_but_not_cancelled(http: httpx.Client) -> None:
    run_id = make(http)
    nodes = ended(http, run_id)["nodes"]
    assert http.post(f"/api/runs/{run_id}/cancel").status_code == 409
    assert http.post(f"/api/runs/{run_id}/restart").status_code == 400
    assert http.post(f"/api/runs/{run_id}/resume", json={"action": "approve"}).status_code == 409
    assert http.post(f"/api/runs/{run_id}/feedback", json={"rating": 0.5}).json()["rating"] == 0.5
    state = http.get(f"/api/runs/{run_id}?state=true").json()
    first = state["checkpoints"][-1]["checkpoint_id"]
    answer = http.post(f"/api/runs/{run_id}/fork", json={"checkpoint_id": first, "mode": "wait"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed" and answer.json()["run_id"] != run_id
    assert [node["id"] for node in answer.json()["nodes"]] == [node["id"] for node in nodes]
    forks = http.get("/api/runs", params={"parent": run_id}).json()["runs"]
    assert [row["run_id"] for row in forks] == [answer.json()["run_id"]]


def test_a_run_that_waits_for_a_human_goes_on_when_told(http: httpx.Client) -> None:
    asked = http.post("/api/runs", json={**ASK, "flow_type": "reviewed_challenge", "mode": "wait"}).json()
    assert asked["status"] == "waiting" and asked["waiting"]["actions"], asked
    run_id = asked["run_id"]
    history = events_of(http.get(f"/api/runs/{run_id}/events?until=waiting").text)
    assert history[-1][0] == "run.waiting"
    body = {"action": "approve", "mode": "wait"}
    answer = http.post(f"/api/runs/{run_id}/resume", json=body).json()
    while answer["status"] == "waiting":
        answer = http.post(f"/api/runs/{run_id}/resume", json=body).json()
    assert answer["status"] == "completed" and answer["run_id"] == run_id
    log = http.get(f"/api/runs/{run_id}").json()["execution_log"]
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))


def test_what_is_not_there_is_404(http: httpx.Client) -> None:
    for method, path, body in (
        ("GET", "/api/runs/none", None),
        ("GET", "/api/runs/none/events", None),
        ("POST", "/api/runs/none/cancel", None),
        ("POST", "/api/runs/none/restart", {}),
        ("POST", "/api/runs/none/fork", {}),
        ("POST", "/api/runs/none/resume", {"action": "approve"}),
        ("POST", "/api/runs/none/feedback", {"rating": 1}),
    ):
        answer = http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "run_id"), path
