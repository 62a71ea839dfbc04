"""WS /ws/runs/{run_id}."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from registries.contracts.errors import StoreError
from serve_app.routes import run_socket
from tests.unit.serve_app.front_door import KEY, front_door, until
from tests.unit.serve_app.raw_client import websocket
from tests.unit.serve_app.scripted_runner import waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
PATH = "/ws/runs/run-1"


def told(text: Any) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text if isinstance(text, str) else json.dumps(text)}


async def test_a_run_that_ended_is_told_whole_and_closed() -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
        async with websocket(door.app, PATH) as socket:
            await socket.over()
    assert socket.sent[0]["type"] == "websocket.accept" and socket.close_code == 1000
    (update,) = socket.updates
    assert set(update) == {"type", "run_id", "status", "execution_log"}
    assert (update["type"], update["run_id"], update["status"]) == ("run_update", "run-1", "completed")
    assert [event["seq"] for event in update["execution_log"]] == [1, 2, 3, 4, 5]


async def test_a_live_run_is_told_first_whole_then_as_it_happens() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "stream": True}))
        await until(lambda: "run-1" in door.runner.held)
        async with websocket(door.app, PATH) as socket:
            await until(lambda: len(socket.updates) == 1)
            await until(lambda: len(door.dispatch.tail._topics["run-1"].readers) == 2)
            door.runner.gate.set()
            await socket.over()
        await call
    updates = socket.updates
    assert updates[0]["status"] == "running" and [e["seq"] for e in updates[0]["execution_log"]] == [1, 2, 3]
    later = [event for update in updates[1:] for event in update["execution_log"]]
    assert [event["type"] for event in later] == ["node.token", "node.completed", "run.completed"]
    assert updates[-1]["status"] == "completed" and socket.close_code == 1000


async def test_statuses_follow_the_events() -> None:
    async with front_door() as door:
        door.runner.story = waiting_story
        await door.client.post("/api/runs", json=ASK)
        async with websocket(door.app, PATH) as socket:
            await until(lambda: [u["status"] for u in socket.updates] == ["queued"])
            await door.runner.work_queue()
            await until(lambda: socket.updates[-1]["status"] == "waiting")
            await door.client.post("/api/runs/run-1/resume", json={"action": "approve"})
            await door.runner.work_queue()
            await socket.over()
    assert socket.updates[-1]["status"] == "completed" and socket.close_code == 1000
    seqs = [event["seq"] for update in socket.updates for event in update["execution_log"]]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("headers", [(), ((b"authorization", b"Basic x"),)])
async def test_the_key_may_come_as_the_first_message(headers: Any) -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
        async with websocket(door.app, PATH, headers) as socket:
            await until(lambda: socket.sent != [])
            assert socket.updates == []
            socket.inbox.put_nowait(told({"type": "auth", "key": KEY}))
            await socket.over()
    assert socket.updates[0]["status"] == "completed" and socket.close_code == 1000


@pytest.mark.parametrize(
    "first",
    [
        told({"type": "auth", "key": "wrong"}),
        told({"type": "auth"}),
        told({"type": "auth", "key": 7}),
        told({"key": KEY}),
        told([KEY]),
        told("nonsense"),
        {"type": "websocket.receive", "text": "[" * 100_000},
        told(KEY),
        {"type": "websocket.receive", "bytes": KEY.encode()},
    ],
)
async def test_anything_else_is_refused(first: dict[str, Any]) -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
        async with websocket(door.app, PATH, ()) as socket:
            socket.inbox.put_nowait(first)
            await socket.over()
    assert socket.close_code == 4401 and socket.updates == []


async def test_a_wrong_key_in_a_header_is_refused_at_once() -> None:
    async with front_door() as door, websocket(door.app, PATH, ((b"x-api-key", b"wrong"),)) as socket:
        await socket.over()
        assert socket.close_code == 4401


async def test_who_says_nothing_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_socket.run_socket_routes, "__defaults__", (0.02,))
    async with front_door() as door, websocket(door.app, PATH, ()) as socket:
        await socket.over()
        assert socket.close_code == 4401 and socket.updates == []


async def test_strangers_do_not_fill_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_socket, "MAX_UNPROVEN", 1)
    async with front_door() as door, websocket(door.app, PATH, ()) as first:
        await until(lambda: first.sent != [])
        async with websocket(door.app, PATH, ()) as second:
            await second.over()
            assert second.close_code == 4401
        async with websocket(door.app, PATH) as known:
            await known.over()
            assert known.close_code == 4404


async def test_an_unknown_run_is_4404() -> None:
    async with front_door() as door, websocket(door.app, "/ws/runs/run-9") as socket:
        await socket.over()
        assert socket.close_code == 4404


async def test_a_store_that_is_away_asks_to_come_again() -> None:
    async with front_door() as door:
        door.faults.down = StoreError("away")
        async with websocket(door.app, PATH) as socket:
            await socket.over()
    assert socket.close_code == 1013


async def test_a_client_that_leaves_is_forgotten_whatever_it_said() -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        async with websocket(door.app, PATH) as socket:
            await until(lambda: len(socket.updates) == 1)
            for _ in range(1000):
                socket.inbox.put_nowait(told("x"))
            await until(socket.inbox.empty)
            socket.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
            await socket.over()
        await until(lambda: len(door.dispatch.tail) == 0)
    assert len(socket.updates) == 1


@pytest.mark.parametrize("denial", [True, False])
async def test_beyond_the_bound_of_watchers(denial: bool) -> None:
    async with front_door(max_ongoing_requests=1) as door:
        await door.client.post("/api/runs", json=ASK)
        async with websocket(door.app, PATH) as one:
            await until(lambda: len(one.updates) == 1)
            async with websocket(door.app, PATH, denial=denial) as two:
                await two.over()
            if denial:
                assert two.status == 429 and json.loads(two.text)["error"]["code"] == "capacity"
            else:
                assert two.close_code == 1013


async def test_a_slow_client_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_socket, "STALLED_S", 0.02)
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        async with websocket(door.app, PATH) as socket:
            await until(lambda: len(socket.updates) == 1)
            socket.takes.clear()
            await door.runner.work_queue()
            await socket.over()
        await until(lambda: len(door.dispatch.tail) == 0)


async def test_other_websockets_are_no_routes() -> None:
    async with front_door() as door, websocket(door.app, "/ws/other") as socket:
        await socket.over()
        assert socket.close_code is not None or socket.status == 404
