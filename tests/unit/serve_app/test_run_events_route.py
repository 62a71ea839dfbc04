"""GET /api/runs/{run_id}/events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registries.contracts.errors import CapacityError
from serve_app.event_reader import MAX_BEHIND_EVENTS
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door, until
from tests.unit.serve_app.raw_client import sse
from tests.unit.serve_app.scripted_runner import failed_story, run_result, waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
PATH = "/api/runs/run-1/events"


async def run_one(door: FrontDoor) -> None:
    assert (await door.client.post("/api/orchestrate", json=ASK)).status_code == 200


async def test_the_history_of_a_run_that_ended() -> None:
    async with front_door() as door:
        await run_one(door)
        answer = await door.client.get(PATH)
    events = events_of(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert [name for name, _, _ in events] == [
        "run.queued",
        "run.started",
        "node.started",
        "node.completed",
        "run.completed",
    ]
    assert [seq for _, seq, _ in events] == ["1", "2", "3", "4", "5"]
    assert events[-1][2]["data"]["result"]["answer"] == "85"


@pytest.mark.parametrize("seen", range(6))
@pytest.mark.parametrize("how", ["header", "parameter"])
async def test_a_reader_goes_on_where_it_was(seen: int, how: str) -> None:
    async with front_door() as door:
        await run_one(door)
        if how == "header":
            # The header is newer than the address, which a browser repeats unchanged.
            answer = await door.client.get(PATH, params={"after": 0}, headers={"last-event-id": str(seen)})
        else:
            answer = await door.client.get(PATH, params={"after": seen})
    assert [seq for _, seq, _ in events_of(answer.text)] == [str(n) for n in range(seen + 1, 6)]


async def test_a_live_run_with_its_tokens_for_whoever_joins() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "stream": True}))
        await until(lambda: "run-1" in door.runner.held)
        async with sse(door.app, PATH) as one, sse(door.app, PATH, last_event_id="2") as two:
            await until(lambda: len(one.events) == 3 and len(two.events) == 1)
            door.runner.gate.set()
            await one.over()
            await two.over()
        await call
    assert [seq for _, seq, _ in one.events] == ["1", "2", "3", "3", "4", "5"]
    assert [name for name, _, _ in two.events] == [
        "node.started",
        "node.token",
        "node.completed",
        "run.completed",
    ]
    assert one.status == 200 and one.sent[-1].get("more_body") is False


async def test_a_queued_run_is_waited_for() -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        async with sse(door.app, PATH) as reader:
            await until(lambda: [name for name, _, _ in reader.events] == ["run.queued"])
            await door.runner.work_queue()
            await reader.over()
        assert [seq for _, seq, _ in reader.events] == ["1", "2", "3", "4", "5"]
        await until(lambda: len(door.dispatch.tail) == 0)


@pytest.mark.parametrize("story", [waiting_story, failed_story])
async def test_what_is_not_the_end_does_not_end_the_stream(story: Any) -> None:
    action, body = ("resume", {"action": "approve"}) if story is waiting_story else ("restart", {})
    async with front_door() as door:
        door.runner.story = story
        await run_one(door)
        last = (await door.row())["last_seq"]
        async with sse(door.app, PATH) as reader:
            if story is failed_story:
                await reader.over()
            else:
                await until(lambda: len(reader.events) == last)
            await door.client.post(f"/api/runs/run-1/{action}", json=body)
            await door.runner.work_queue()
            if story is waiting_story:
                await reader.over()
                assert reader.events[-1][0] == "run.completed"
        whole = events_of((await door.client.get(PATH)).text)
    assert [int(seq or 0) for _, seq, _ in whole] == list(range(1, len(whole) + 1))
    assert {"run.waiting", "run.resumed"} <= {n for n, _, _ in whole} or {"run.failed", "run.restarted"} <= {
        n for n, _, _ in whole
    }


async def test_until_waiting_ends_when_the_run_waits() -> None:
    async with front_door() as door:
        door.runner.story = waiting_story
        await run_one(door)
        answer = await door.client.get(f"{PATH}?until=waiting")
        events = events_of(answer.text)
        assert events[-1][0] == "run.waiting" and events[-1][2]["data"]["waiting"]["node"] == "approval"
        await door.client.post("/api/runs/run-1/resume", json={"action": "approve", "mode": "wait"})
        # It waits no more: the question in its past ends nothing.
        later = events_of((await door.client.get(f"{PATH}?until=waiting")).text)
    assert later[-1][0] == "run.completed" and "run.waiting" in [name for name, _, _ in later]


@pytest.mark.parametrize(
    ("path", "headers", "status", "param"),
    [
        ("/api/runs/run-9/events", {}, 404, "run_id"),
        (f"{PATH}?after=6", {}, 400, "after"),
        (f"{PATH}?after=-1", {}, 400, "after"),
        (f"{PATH}?after=one", {}, 400, "after"),
        (f"{PATH}?after=1&after=2", {}, 400, "after"),
        (PATH, {"last-event-id": "99999999999999999999"}, 400, "Last-Event-ID"),
        (PATH, {"last-event-id": "000000000099"}, 400, "Last-Event-ID"),
        (PATH, {"last-event-id": "0" * 31 + "1"}, 400, "Last-Event-ID"),
        (PATH, {"last-event-id": "0000000001" + "9" * 22}, 400, "Last-Event-ID"),
        (PATH, {"last-event-id": "9" * 5000}, 400, "Last-Event-ID"),
        (f"{PATH}?after=000000000099", {}, 400, "after"),
        (f"{PATH}?until=done", {}, 400, "until"),
        (f"{PATH}?untli=waiting", {}, 400, "untli"),
    ],
)
async def test_what_cannot_be_read(path: str, headers: dict[str, str], status: int, param: str) -> None:
    async with front_door() as door:
        await run_one(door)
        answer = await door.client.get(path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_client_that_takes_nothing_is_cut_off_and_costs_no_more_memory() -> None:
    async with front_door() as door:
        tokens = 3 * MAX_BEHIND_EVENTS
        door.runner.story = lambda order: [
            [("node.started", "creator", {})],
            *[[("node.token", "creator", {"text": "x"})]] * tokens,
            run_result(order),
        ]
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "stream": True}))
        await until(lambda: "run-1" in door.runner.held)
        async with sse(door.app, PATH) as stuck:
            await until(lambda: len(stuck.events) == 3)
            stuck.takes.clear()
            door.runner.gate.set()
            await call
            # Its reader is out of the run; nobody else holds what it has not taken.
            await until(
                lambda: len(door.dispatch.tail) == 0 or not door.dispatch.tail._topics["run-1"].readers
            )
            stuck.takes.set()
            await stuck.over()
        name, _, error = stuck.events[-1]
        assert name == "error" and error["error"]["code"] == "capacity"
        assert "Last-Event-ID" in error["error"]["message"]
        assert len(stuck.events) < MAX_BEHIND_EVENTS + 100
        # And goes on where it was.
        seen = [int(seq) for name, seq, _ in stuck.events if name != "node.token" and seq][-1]
        rest = events_of((await door.client.get(f"{PATH}?after={seen}")).text)
    assert [int(seq or 0) for _, seq, _ in rest] == list(range(seen + 1, 5))


async def test_watchers_have_a_bound_of_their_own() -> None:
    async with front_door(max_ongoing_requests=2) as door:
        await door.client.post("/api/runs", json=ASK)
        async with sse(door.app, PATH) as one, sse(door.app, PATH) as two:
            await until(lambda: one.status == 200 and two.status == 200)
            async with sse(door.app, PATH) as third:
                await third.over()
                assert third.status == 429 and "watchers" in third.text
            assert "rejected watchers_full" in door.metrics.counted
            # Requests have their places all the same.
            assert (await door.client.post("/api/orchestrate", json=ASK)).status_code == 200
        async with sse(door.app, PATH) as again:
            await until(lambda: again.status == 200)


async def test_a_fault_of_the_reading_is_told_in_the_stream() -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        async with sse(door.app, PATH) as reader:
            await until(lambda: len(reader.events) == 1)
            topic = door.dispatch.tail._topics["run-1"]
            await until(lambda: len(topic.readers) == 1)
            next(iter(topic.readers)).fail(CapacityError("enough"))
            await reader.over()
    assert reader.events[-1][0] == "error" and reader.events[-1][2]["error"]["message"] == "enough"
