"""POST and GET /api/runs, GET /api/runs/{run_id}."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from registries.contracts.errors import CapacityError, StoreError, StoreFull
from registries.contracts.runs import RunEvent, RunOrder
from serve_app.queue_gate import QueueGate
from serve_app.run_detail import run_detail
from serve_app.run_listing import cursor_after
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door, until
from tests.unit.serve_app.scripted_runner import CATALOG, failed_story, waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}


async def make(door: FrontDoor, **values: Any) -> str:
    answer = await door.client.post("/api/runs", json={**ASK, **values})
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


async def test_a_background_run_is_committed_before_it_is_acknowledged() -> None:
    async with front_door() as door:
        answer = await door.client.post("/api/runs", json={**ASK, "priority": 3, "conversation_id": "c"})
        row = await door.row()
    body = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == "/api/runs/run-1"
    assert abs(body.pop("created_at") - row["created_at"]) < 5
    assert body == {
        "run_id": "run-1",
        "status": "queued",
        "flow": "challenge",
        "flow_version": CATALOG.flows.get("challenge").version,
        "parent": None,
        "links": {
            "self": "/api/runs/run-1",
            "events": "/api/runs/run-1/events",
            "cancel": "/api/runs/run-1/cancel",
        },
    }
    assert row["status"] == "queued" and row["priority"] == 3 and row["conversation_id"] == "c"
    assert door.runner.asked == [] and door.metrics.counted == ["queued"] and door.dispatch.live == 0


async def test_runners_are_told_of_many_background_runs_with_one_call_at_a_time() -> None:
    async with front_door() as door:
        under_way = most = 0
        held_up = asyncio.Event()

        async def wake() -> None:
            nonlocal under_way, most
            door.runner.woken += 1
            under_way += 1
            most = max(most, under_way)
            await held_up.wait()
            under_way -= 1

        door.runner.wake = wake  # type: ignore[method-assign]
        await asyncio.gather(*(make(door) for _ in range(30)))
        held_up.set()
        await until(lambda: under_way == 0)
        # One more for those that came while it was told; none when all had come before it was.
        assert most == 1 and door.runner.woken <= 2
        assert len(await door.rows()) == 30


async def test_runners_that_cannot_be_told_find_the_run_themselves() -> None:
    async with front_door() as door:

        async def wake() -> None:
            raise CapacityError("no runner could be started")

        door.runner.wake = wake  # type: ignore[method-assign]
        await make(door)
        assert await door.runner.work_queue() == 1
        assert (await door.row())["status"] == "completed"


@pytest.mark.parametrize("body", [{"mode": "wait"}, {"mode": "wait", "stream": False}])
async def test_a_run_can_be_waited_for(body: dict[str, Any]) -> None:
    async with front_door() as door:
        answer = await door.client.post("/api/runs", json={**ASK, **body})
    assert answer.status_code == 200 and answer.json()["answer"] == "85"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/runs", {"mode": "stream"}),
        ("/api/runs", {"stream": True}),
        ("/api/runs/stream", {}),
        ("/api/runs/stream", {"mode": "background"}),
    ],
)
async def test_a_run_can_be_streamed(path: str, body: dict[str, Any]) -> None:
    async with front_door() as door:
        answer = await door.client.post(path, json={**ASK, **body})
    events = events_of(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (events[0][0], events[-1][0]) == ("run.queued", "run.completed")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"flow_type": "chalenge"}, 404, "flow_type"),
        ({"mode": "later"}, 400, "mode"),
        ({"mode": "wait", "stream": True}, 400, "body"),
        ({"mode": "background", "stream": True}, 400, "body"),
        ({"priority": 11}, 400, "priority"),
        ({"priority": True}, 400, "priority"),
        ({"prompt": " "}, 400, "body"),
        ({"models": {"king": "nano-m"}}, 400, "models.king"),
        ({"flow_version": "0"}, 400, "flow_version"),
        ({"speed": 1}, 400, "speed"),
    ],
)
@pytest.mark.parametrize("path", ["/api/runs", "/api/runs/stream"])
async def test_runs_that_cannot_run_are_refused(
    path: str, body: dict[str, Any], status: int, param: str
) -> None:
    async with front_door() as door:
        answer = await door.client.post(path, json={**ASK, **body})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert await door.rows() == []


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [("down", StoreError("away", retry_after_s=2.0), 503), ("full", StoreFull("no space is left"), 507)],
)
async def test_what_the_store_does_not_take_is_not_acknowledged(
    fault: str, error: Exception, status: int
) -> None:
    async with front_door() as door:
        setattr(door.faults, fault, error)
        answer = await door.client.post("/api/runs", json=ASK)
        assert answer.status_code == status and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["retryable"] is True and await door.rows() == []
        setattr(door.faults, fault, None)
        await make(door)


async def test_a_database_file_that_is_full_answers_507_and_recovers() -> None:
    async with front_door() as sized:
        await make(sized, prompt="x" * 1000)
        pages = (await sized.store.facts()).details
    assert pages
    folder = Path(f"/tmp/parley-full-{id(pages)}.db")
    try:
        async with front_door(store_url=f"sqlite://{folder}?max_page_count=60") as door:
            answer = await door.client.post("/api/runs", json={**ASK, "prompt": "x" * 1_000_000})
            assert answer.status_code == 507 and answer.json()["error"]["code"] == "store_full"
            assert int(answer.headers["retry-after"]) >= 1
            await make(door)
            assert len(await door.rows()) == 1
    finally:
        for file in folder.parent.glob(f"{folder.name}*"):
            file.unlink()


async def test_a_full_queue_refuses_background_runs_at_once() -> None:
    async with front_door(max_queued_runs=3) as door:
        for _ in range(3):
            await make(door)
        refused = await door.client.post("/api/runs", json=ASK)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "capacity" and len(await door.rows()) == 3
        assert "rejected queue_full" in door.metrics.counted
        # A client that waits is bounded by the runners' slots, not by the queue.
        assert (await door.client.post("/api/orchestrate", json=ASK)).status_code == 200


async def test_the_count_of_the_queue_is_never_older_than_half_a_second() -> None:
    async with front_door() as door:
        now = 0.0
        gate = QueueGate(door.store, 2, lambda: now)
        await gate.enter()
        await gate.enter()
        with pytest.raises(CapacityError):
            await gate.enter()
        now = 0.49
        with pytest.raises(CapacityError):
            await gate.enter()
        now = 0.5
        # Nothing that was let in ever came into the store: the next reading knows.
        await gate.enter()


# -- lists


async def test_a_list_has_runs_newest_first_by_pages() -> None:
    async with front_door() as door:
        made = [await make(door, prompt=f"question {number}") for number in range(7)]
        first = (await door.client.get("/api/runs", params={"limit": 3})).json()
        second = (
            await door.client.get("/api/runs", params={"limit": 3, "cursor": first["next_cursor"]})
        ).json()
        third = (
            await door.client.get("/api/runs", params={"limit": 3, "cursor": second["next_cursor"]})
        ).json()
        exact = (await door.client.get("/api/runs", params={"limit": 7})).json()
    pages = [page["runs"] for page in (first, second, third)]
    assert [row["run_id"] for page in pages for row in page] == sorted(made, reverse=True)
    assert third["next_cursor"] is None and exact["next_cursor"] is None and len(exact["runs"]) == 7
    row = pages[0][0]
    assert row["prompt"] == "question 6" and row["status"] == "queued" and row["answer"] == ""
    assert "input" not in row["request"] and "feedback" not in row


async def test_a_page_goes_on_after_a_run_that_was_removed() -> None:
    async with front_door() as door:
        made = [await make(door) for _ in range(2)]
        page = await door.client.get("/api/runs", params={"cursor": cursor_after("run-1x")})
    assert page.status_code == 200 and [row["run_id"] for row in page.json()["runs"]] == made[:1]


async def test_a_list_is_filtered() -> None:
    async with front_door() as door:
        await make(door, conversation_id="a")
        await make(door, conversation_id="b")
        await make(door, flow_type="linear")
        await door.client.post("/api/runs/run-3/cancel")
        await door.client.post("/api/orchestrate", json=ASK)
        created = (await door.row("run-2"))["created_at"]

        async def ids(query: str) -> list[str]:
            answer = await door.client.get(f"/api/runs?{query}")
            assert answer.status_code == 200, answer.text
            return sorted(row["run_id"] for row in answer.json()["runs"])

        assert await ids("") == ["run-1", "run-2", "run-3", "run-4"]
        assert await ids("status=queued") == ["run-1", "run-2"]
        assert await ids("status=cancelled,completed") == ["run-3", "run-4"]
        assert await ids("status=cancelled&status=completed") == ["run-3", "run-4"]
        assert await ids("flow=linear") == ["run-3"]
        assert await ids("conversation_id=b") == ["run-2"]
        assert await ids("user=admin&flow=challenge&status=completed") == ["run-4"]
        assert await ids("user=nobody") == [] and await ids("parent=run-1") == []
        assert await ids(f"created_after={created}") == ["run-2", "run-3", "run-4"]
        assert await ids(f"created_before={created}") == ["run-1"]
        assert await ids("created_after=2020-01-01T00:00:00Z&created_before=2021-01-01") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=done", "status"),
        ("status=queued,", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=000100999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("created_after=yesterday", "created_after"),
        ("created_before=nan", "created_before"),
        ("created_before=inf", "created_before"),
        ("flow=", "flow"),
        ("cursor=" + "x" * 201, "cursor"),
        ("cursor=garbage", "cursor"),
        ("cursor=after:", "cursor"),
        ("cursor=after::00000000", "cursor"),
        ("cursor=after:zzz", "cursor"),
        ("cursor=after:0", "cursor"),
        ("cursor=after:%00", "cursor"),
        ("cursor=%ff:zzz", "cursor"),
        ("cursor=" + cursor_after("run-1").replace("run-1", "run-2"), "cursor"),
        ("cursor=" + cursor_after("run-1").removeprefix("after:"), "cursor"),
        ("stauts=queued", "stauts"),
    ],
)
async def test_a_wrong_query_is_named(query: str, param: str) -> None:
    async with front_door() as door:
        answer = await door.client.get(f"/api/runs?{query}")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    if param == "stauts":
        assert "Did you mean 'status'?" in answer.json()["error"]["message"]


# -- one run


async def test_a_finished_run_in_full() -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
        await door.client.post("/api/runs/run-1/feedback", json={"rating": 0.5})
        body = (await door.client.get("/api/runs/run-1")).json()
        short = (await door.client.get("/api/runs/run-1?log=false")).json()
    assert body["status"] == "completed" and body["answer"] == "85" and body["attempts"] == 1
    assert body["result"]["answer"] == "85" and body["cost_usd"] == 0.0 and body["error"] is None
    log = body["execution_log"]
    assert [event["seq"] for event in log] == [1, 2, 3, 4, 5]
    assert log[0]["type"] == "run.queued" and "node.token" not in str(log)
    assert body["feedback"][0]["rating"] == 0.5 and body["feedback"][0]["user"] == "admin"
    assert "execution_log" not in short and short["answer"] == "85"


async def test_a_run_under_way_shows_what_was_committed() -> None:
    async with front_door() as door:
        door.runner.story = failed_story
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: "run-1" in door.runner.held)
        body = (await door.client.get("/api/runs/run-1?log=false")).json()
        door.runner.gate.set()
        await call
        ended = (await door.client.get("/api/runs/run-1")).json()
    assert body["status"] == "running" and body["result"] is None and body["answer"] == ""
    assert [node["id"] for node in body["nodes"]] == ["creator"] and body["nodes"][0]["text"] == "85"
    assert body["timings"] is None and ended["timings"] is not None
    assert ended["status"] == "failed" and ended["error"]["code"] == "provider_error"


async def test_a_run_that_waits_shows_its_question() -> None:
    async with front_door() as door:
        door.runner.story = waiting_story
        told = (await door.client.post("/api/orchestrate", json=ASK)).json()
        body = (await door.client.get("/api/runs/run-1")).json()
    assert body["status"] == "waiting" and body["waiting"]["question"] == "Send it?"
    assert (body["timings"], body["rounds"]) == (told["timings"], told["rounds"])


async def test_a_run_of_another_version_is_shown_as_that_one_wrote_it(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as door:
        door.runner.story = failed_story
        await door.client.post("/api/orchestrate", json=ASK)
        with sqlite3.connect(tmp_path / "parley.db") as database:
            database.execute("UPDATE runs SET result = json_set(result, '$.invented', 1)")
            database.execute("UPDATE runs SET request = json_set(request, '$.invented', 1)")
        shown = await door.client.get("/api/runs/run-1")
        refused = await door.client.post("/api/runs/run-1/restart")
    body = shown.json()
    assert shown.status_code == 200 and body["status"] == "failed" and body["result"]["invented"] == 1
    assert body["error"]["code"] == "provider_error" and body["nodes"] == []
    assert refused.status_code == 409
    assert refused.json()["error"]["message"] == "this version of the runtime cannot read the run's request"


def test_rounds_so_far_are_those_of_the_loop_that_went_round_most() -> None:
    row = {"run_id": "r", "flow": "f", "flow_version": "v", "status": "running", "result": None}
    begun = [("challenger", 1), ("challenger", 2), ("approver", 1)]
    events = [
        RunEvent(run_id="r", seq=n, time=1.0, type="round.started", node=node, data={"round": number})
        for n, (node, number) in enumerate(begun, 1)
    ]
    assert run_detail(row, events, with_log=False)["rounds"] == 2


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/api/runs/run-9", 404, "run_id"),
        ("/api/runs/run-9?log=maybe", 400, "log"),
        ("/api/runs/run-9?lgo=true", 400, "lgo"),
    ],
)
async def test_runs_that_cannot_be_shown(path: str, status: int, param: str) -> None:
    async with front_door() as door:
        answer = await door.client.get(path)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("path", ["/api/runs", "/api/runs/run-1", "/api/runs/run-1/events"])
async def test_a_store_that_is_away_is_told(path: str) -> None:
    async with front_door() as door:
        await make(door)
        door.faults.down = StoreError("away")
        answer = await door.client.get(path)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


async def test_the_cost_of_a_run_is_shown_in_dollars() -> None:
    async with front_door() as door:

        def story(order: RunOrder) -> Any:
            from tests.unit.serve_app.scripted_runner import run_result

            return [run_result(order, usage={"prompt_tokens": 1, "cost_micro_usd": 1_500_000})]

        door.runner.story = story
        await door.client.post("/api/orchestrate", json=ASK)
        assert (await door.client.get("/api/runs/run-1")).json()["cost_usd"] == 1.5
