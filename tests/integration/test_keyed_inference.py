"""Model calls with an Idempotency-Key over HTTP, on the real cluster, behind HAProxy."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiohttp
import httpx
import pytest

from tests.integration.front_door_client import QUESTION, running_calls, wait_for, waiting_client
from tests.runtime_cluster import RunningCluster
from tests.unit.serve_app.front_door import events_of

PATH = "/api/inference"
SLOW = {"prompt": QUESTION, "model_key": "slow-start"}
"""Answers after four seconds."""


@pytest.fixture
def keyed() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


async def test_fifty_duplicates_at_once_are_one_call(
    cluster: RunningCluster, http: httpx.Client, keyed: dict[str, str]
) -> None:
    headers = {**cluster.headers, **keyed}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(**change: Any) -> tuple[int, Any, bool]:
            async with session.post(f"{cluster.base_url}{PATH}", json={**SLOW, **change}) as answer:
                return answer.status, await answer.json(), "Idempotency-Replayed" in answer.headers

        calls = [asyncio.create_task(post()) for _ in range(50)]
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, await asyncio.to_thread(running_calls, http, "slow-start"))
            await asyncio.sleep(0.1)
        answers = await asyncio.gather(*calls)
        other = await post(prompt="another question")
    assert {status for status, _, _ in answers} == {200} and most == 1
    bodies = [body for _, body, _ in answers]
    assert all(body == bodies[0] for body in bodies) and bodies[0]["text"] == "here after all"
    assert sum(replayed for _, _, replayed in answers) == 49
    assert other[0] == 422 and other[1]["error"]["code"] == "idempotency_key_reused"


def test_a_failed_call_is_not_kept(http: httpx.Client, keyed: dict[str, str]) -> None:
    ask = {"prompt": QUESTION, "model_key": "broken"}
    for _ in range(2):
        failed = http.post(PATH, json=ask, headers=keyed)
        assert failed.status_code >= 400 and "Idempotency-Replayed" not in failed.headers
    # Nothing stands for the key: another request may have it.
    answer = http.post(PATH, json={**ask, "model_key": "fast"}, headers=keyed)
    assert answer.status_code == 200 and "Idempotency-Replayed" not in answer.headers


def test_a_client_that_leaves_comes_again_and_gets_the_answer(
    cluster: RunningCluster, http: httpx.Client, keyed: dict[str, str]
) -> None:
    ask = {"prompt": QUESTION, "model_key": "patient"}
    with waiting_client(cluster, PATH, ask, headers=keyed):
        wait_for(lambda: running_calls(http, "patient") == 1, 8)
    answer = http.post(PATH, json=ask, headers=keyed)
    assert answer.json()["text"] and answer.headers["Idempotency-Replayed"] == "true"
    assert http.post(PATH, json=ask, headers=keyed).content == answer.content


def test_a_stream_goes_on_without_its_client_and_is_replayed(
    http: httpx.Client, keyed: dict[str, str]
) -> None:
    ask = {"prompt": QUESTION, "model_key": "slow", "stream": True}
    with http.stream("POST", PATH, json=ask, headers=keyed) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines) == "event: token"
    replayed = http.post(PATH, json=ask, headers=keyed)
    events = events_of(replayed.text)
    assert replayed.headers["Idempotency-Replayed"] == "true" and events[-1][0] == "result"
    told = "".join(data["text"] for name, _, data in events if name == "token")
    assert told == events[-1][2]["text"]
    again = events_of(http.post(PATH, json=ask, headers=keyed).text)
    assert [name for name, _, _ in again] == ["token", "result"] and again[-1] == events[-1]


def test_a_key_of_a_run_is_refused_and_the_other_way_round(http: httpx.Client, keyed: dict[str, str]) -> None:
    run = {"prompt": QUESTION, "flow_type": "linear"}
    call = {"prompt": QUESTION, "model_key": "fast"}
    assert http.post("/api/runs", json=run, headers=keyed).status_code == 202
    assert http.post(PATH, json=call, headers=keyed).status_code == 422
    other = {"Idempotency-Key": str(uuid.uuid4())}
    assert http.post(PATH, json=call, headers=other).status_code == 200
    assert http.post("/api/runs", json=run, headers=other).status_code == 422
