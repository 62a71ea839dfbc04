"""Idempotency-Key: the same request twice is the same run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from registries.contracts.errors import ValidationError
from registries.contracts.runs import RunOrder, RunResult
from serve_app.idempotency import idempotency_key
from serve_app.run_schemas import CreateRunRequest
from tests.unit.serve_app.front_door import events_of, front_door, until
from tests.unit.serve_app.scripted_runner import Step, failed_story, plain_story, waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
KEYED = {"Idempotency-Key": "mine-1"}
REPLAYED = "idempotency-replayed"


@pytest.mark.parametrize("mode", ["background", "wait"])
async def test_fifty_duplicates_at_once_make_one_run(mode: str) -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        calls = [
            asyncio.create_task(door.client.post("/api/runs", json={**ASK, "mode": mode}, headers=KEYED))
            for _ in range(50)
        ]
        if mode == "wait":
            await until(lambda: "run-1" in door.runner.held or len(door.runner.orders) == 1)
            await until(lambda: sum(live.clients for live in door.dispatch._live.values()) == 50)
        door.runner.gate.set()
        answers = await asyncio.gather(*calls)
        rows = await door.rows()
    assert {answer.status_code for answer in answers} == {202 if mode == "background" else 200}
    assert {answer.json()["run_id"] for answer in answers} == {rows[0]["run_id"]} and len(rows) == 1
    assert sum(REPLAYED in answer.headers for answer in answers) == 49
    assert len(door.runner.asked) == (1 if mode == "wait" else 0) and door.metrics.counted == ["queued"]
    if mode == "wait":
        assert {answer.json()["answer"] for answer in answers} == {"85"}


@pytest.mark.parametrize("mode", ["background", "wait", "stream"])
async def test_a_duplicate_after_a_restart_of_the_runtime_is_the_same_run(mode: str, tmp_path: Path) -> None:
    ask = {**ASK, "mode": mode}
    async with front_door(home=tmp_path) as before:
        first = await before.client.post("/api/runs", json=ask, headers=KEYED)
        await before.runner.work_queue()
    async with front_door(home=tmp_path) as after:
        second = await after.client.post("/api/runs", json=ask, headers=KEYED)
        assert len(await after.rows()) == 1 and after.runner.asked == []
    assert second.status_code == first.status_code and second.headers[REPLAYED] == "true"
    assert REPLAYED not in first.headers
    if mode == "background":
        assert second.json()["run_id"] == first.json()["run_id"] and second.json()["status"] == "completed"
        assert set(second.json()) == set(first.json())
    elif mode == "wait":
        assert second.json() == first.json()
    else:
        assert [name for name, _, _ in events_of(second.text)][-1] == "run.completed"


async def test_a_duplicate_is_answered_though_nothing_new_would_be_taken(tmp_path: Path) -> None:
    """A full queue, and a flow that is not there any more: the run exists, whatever has become of them."""
    async with front_door(home=tmp_path, max_queued_runs=1) as door:
        first = await door.client.post("/api/runs", json=ASK, headers=KEYED)
        assert (await door.client.post("/api/runs", json=ASK)).status_code == 429
        again = await door.client.post("/api/runs", json=ASK, headers=KEYED)
        # As if the first one had asked for a flow that was removed from the registry since.
        asked = {**ASK, "flow_type": "gone"}
        key = idempotency_key(request_with("mine-1"), CreateRunRequest.model_validate(asked))
        assert key is not None
        with sqlite3.connect(tmp_path / "parley.db") as database:
            database.execute("UPDATE idempotency_keys SET digest = ?", (key.digest,))
        gone = await door.client.post("/api/runs", json=asked, headers=KEYED)
    for answer in (again, gone):
        assert answer.status_code == 202 and answer.json()["run_id"] == first.json()["run_id"]
        assert answer.headers[REPLAYED] == "true"


async def test_a_duplicate_of_a_run_that_other_processes_hold_follows_it(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.runner.gate = asyncio.Event()
        first = asyncio.create_task(one.client.post("/api/orchestrate", json=ASK, headers=KEYED))
        await until(lambda: "run-1" in one.runner.held)
        second = asyncio.create_task(other.client.post("/api/orchestrate", json=ASK, headers=KEYED))
        await until(lambda: other.dispatch.live == 1)
        one.runner.gate.set()
        answers = [await first, await second]
    assert answers[0].json() == answers[1].json() and answers[1].headers[REPLAYED] == "true"
    assert other.runner.asked == []


async def test_a_duplicate_that_leaves_does_not_cancel_the_run_of_the_other() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        ask = {**ASK, "on_disconnect": "cancel"}
        calls = [
            asyncio.create_task(door.client.post("/api/orchestrate", json=ask, headers=KEYED))
            for _ in range(2)
        ]
        await until(lambda: sum(live.clients for live in door.dispatch._live.values()) == 2)
        calls[0].cancel()
        await asyncio.wait({calls[0]})
        assert (await door.row())["cancel_requested"] is False
        door.runner.gate.set()
        assert (await calls[1]).json()["status"] == "completed"


async def test_a_duplicate_of_a_waiting_run_gets_its_question_and_what_led_to_it() -> None:
    async with front_door() as door:
        door.runner.story = waiting_story
        first = await door.client.post("/api/orchestrate", json=ASK, headers=KEYED)
        second = await door.client.post("/api/orchestrate", json=ASK, headers=KEYED)
    assert second.json() == first.json() and second.json()["status"] == "waiting"


async def test_a_duplicate_gets_all_events_though_another_request_resumes_the_run_here() -> None:
    def held_up(order: RunOrder) -> Sequence[list[Step] | RunResult]:
        # The gate comes after the first batch: the resumed run must have a second one.
        return waiting_story(order) if order.attempt == 1 else plain_story(order)

    streams = {**ASK, "mode": "stream"}
    async with front_door() as door:
        door.runner.story = held_up
        await door.client.post("/api/runs", json=streams, headers=KEYED)
        await until(lambda: door.dispatch.live == 0)
        door.runner.gate = asyncio.Event()
        decision = {"action": "approve", "mode": "stream"}
        resumed = asyncio.create_task(door.client.post("/api/runs/run-1/resume", json=decision))
        await until(lambda: "run-1" in door.dispatch._live)
        again = asyncio.create_task(door.client.post("/api/runs", json=streams, headers=KEYED))
        await until(lambda: any(live.clients == 2 for live in door.dispatch._live.values()))
        door.runner.gate.set()
        events = [int(seq or 0) for name, seq, _ in events_of((await again).text) if name != "node.token"]
        await resumed
    assert events == list(range(1, len(events) + 1)) and len(events) > 4


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/api/runs", {"prompt": "another"}),
        ("/api/runs", {"mode": "wait"}),
        ("/api/runs/stream", {}),
        ("/api/orchestrate", {}),
    ],
)
async def test_the_same_key_with_another_request_is_422(path: str, change: dict[str, Any]) -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK, headers=KEYED)
        answer = await door.client.post(path, json={**ASK, **change}, headers=KEYED)
        assert len(await door.rows()) == 1
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        422,
        "idempotency_key_reused",
        "Idempotency-Key",
    )


async def test_other_keys_and_no_key_are_other_runs() -> None:
    async with front_door() as door:
        for headers in (KEYED, {"Idempotency-Key": "mine-2"}, {}, {}):
            await door.client.post("/api/runs", json=ASK, headers=headers)
        assert len(await door.rows()) == 4


@pytest.mark.parametrize("action", ["restart", "resume", "cancel"])
async def test_actions_are_done_once(action: str) -> None:
    body: dict[str, Any] = {"action": "approve"} if action == "resume" else {}
    async with front_door() as door:
        door.runner.story = failed_story if action == "restart" else waiting_story
        await door.client.post("/api/orchestrate", json=ASK)
        path = f"/api/runs/run-1/{action}"
        first = await door.client.post(path, json=body, headers=KEYED)
        await door.runner.work_queue()
        second = await door.client.post(path, json=body, headers=KEYED)
        other = await door.client.post("/api/runs/run-1/restart", json={"deadline_s": 5}, headers=KEYED)
    assert first.status_code == second.status_code and second.json()["run_id"] == "run-1"
    assert second.json()["status"] == ("cancelled" if action == "cancel" else "completed")
    assert (REPLAYED in second.headers) is (action != "cancel")
    assert other.status_code == 422


@pytest.mark.parametrize("given", ["", " ", "x" * 256, "a\tb"])
@pytest.mark.parametrize("path", ["/api/runs", "/api/runs/run-1/cancel", "/api/runs/run-1/feedback"])
async def test_keys_that_are_none(given: str, path: str) -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        body = {"rating": 1} if path.endswith("feedback") else ASK
        answer = await door.client.post(path, json=body, headers={"Idempotency-Key": given})
        assert len(await door.rows()) == 1
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


def request_with(key: str | None, path: str = "/api/runs") -> Request:
    headers = [] if key is None else [(b"idempotency-key", key.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    return Request({**scope, "server": ("t", 80), "scheme": "http"})


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_every_printable_key_that_http_can_carry_is_taken(key: str) -> None:
    # Blanks around a header's value are not part of it.
    if key != key.strip():
        return
    found = idempotency_key(request_with(key))
    assert found is not None and found.key == key and len(found.digest) == 64


@given(st.text(min_size=1, max_size=20).filter(lambda t: any(not 0x20 <= ord(c) <= 0x7E for c in t)))
def test_no_other_key_is(key: str) -> None:
    try:
        request = request_with(key)
    except UnicodeEncodeError:
        return
    with pytest.raises(ValidationError):
        idempotency_key(request)


def test_the_digest_is_over_what_was_sent_in_any_order() -> None:
    def digest(path: str = "/api/runs", **body: Any) -> str:
        found = idempotency_key(request_with("k", path), CreateRunRequest.model_validate(body))
        assert found is not None
        return found.digest

    one = digest(prompt="a", flow_type="linear", models={"x": "1", "y": "2"})
    assert one == digest(models={"y": "2", "x": "1"}, flow_type="linear", prompt="a")
    assert one != digest(prompt="b", flow_type="linear", models={"x": "1", "y": "2"})
    assert one != digest("/api/orchestrate", prompt="a", flow_type="linear", models={"x": "1", "y": "2"})
    assert idempotency_key(request_with(None)) is None
