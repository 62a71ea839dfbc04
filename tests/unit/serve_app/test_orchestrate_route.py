from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registries.contracts.errors import (
    CapacityError,
    Conflict,
    InternalError,
    NotFound,
    StoreError,
    StoreFull,
)
from registries.contracts.runs import RunEvent, RunOrder
from serve_app.run_ports import RunnerLost
from serve_app.streaming import PATIENCE_S
from tests.machine_pace import paced
from tests.passing_time import skip_time
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door, until
from tests.unit.serve_app.raw_client import sse
from tests.unit.serve_app.scripted_runner import failed_story, run_result, waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
PLAIN = ["run.queued", "run.started", "node.started", "node.token", "node.completed", "run.completed"]
DURABLE = [name for name in PLAIN if name != "node.token"]
STATED = {"down": StoreError("the database cannot be reached"), "full": StoreFull("no space is left")}


def full_house() -> CapacityError:
    return CapacityError("the runner is full", retry_after_s=2.0)


async def asked(door: FrontDoor, count: int = 1) -> None:
    await until(lambda: len(door.runner.asked) == count)


async def test_a_run_is_accepted_and_answers_whole() -> None:
    async with front_door(default_deadline_s=77) as door:
        answer = await door.client.post(
            "/api/orchestrate",
            json={**ASK, "models": {"creator": "nano-m"}, "seed": 3},
            headers={"x-request-id": "req-9", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
        )
        row = await door.row()
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "completed" and body["answer"] == "85"
    assert body["run_id"] == "run-1" and body["request_id"] == "req-9" and body["error"] is None
    order = door.runner.asked[0]
    assert isinstance(order, RunOrder) and type(order.request).__name__ == "RunRequest"
    assert order.request.models == {"creator": "nano-m"} and order.request.seed == 3
    assert 76 < order.deadline_s <= 77 and order.traceparent == f"00-{'a' * 32}-{'b' * 16}-01"
    assert row["status"] == "completed" and door.metrics.counted == ["queued"]


async def test_a_run_that_a_runner_takes_at_once_is_written_by_nobody_else() -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
    # Nor does anybody read it: 250 of them a second leave no room for that.
    assert door.faults.asked == [] and door.runner.woken == 0


@pytest.mark.parametrize("asked", [{"stream": True}, {"mode": "stream"}, {"mode": "stream", "stream": True}])
async def test_streamed_runs_are_their_events_with_seq_as_id(asked: dict[str, Any]) -> None:
    async with front_door() as door:
        answer = await door.client.post("/api/orchestrate", json={**ASK, **asked})
    events = events_of(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    # The first is written where the run was accepted; a reader gets it all the same.
    durable = [(name, int(seq or 0)) for name, seq, _ in events if name != "node.token"]
    assert durable == list(zip(DURABLE, range(1, 6), strict=True))
    assert RunEvent.model_validate(events[0][2]).run_id == "run-1"
    assert events[-1][2]["data"]["result"]["answer"] == "85"


async def test_tokens_of_a_run_under_way_reach_its_stream() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "stream": True}))
        with door.dispatch.tail.topic("run-1") as topic:
            await until(lambda: topic.begun and bool(topic.readers))
        door.runner.gate.set()
        events = events_of((await call).text)
    assert [name for name, _, _ in events] == PLAIN
    assert [seq for _, seq, _ in events] == ["1", "2", "3", "3", "4", "5"]


@pytest.mark.parametrize("mode", ["wait", "stream"])
@pytest.mark.parametrize("refusal", [full_house(), RunnerLost("died"), Conflict("taken already")])
async def test_a_run_that_no_runner_takes_at_once_queues_and_is_followed(
    mode: str, refusal: Exception
) -> None:
    async with front_door() as door:
        door.runner.errors = [refusal]
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "mode": mode}))
        await until(lambda: door.runner.woken == 1)
        assert (await door.row())["status"] == "queued"
        assert await door.runner.work_queue() == 1
        answer = await call
    assert answer.status_code == 200 and door.metrics.counted == ["queued"]
    if mode == "stream":
        assert [name for name, _, _ in events_of(answer.text)] == DURABLE
    else:
        assert answer.json()["answer"] == "85"


async def test_beyond_the_limit_nothing_is_accepted() -> None:
    async with front_door(runner_max_ongoing=1, runner_max_replicas=1, runner_max_queued=0) as door:
        door.runner.gate = asyncio.Event()
        first = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: len(door.runner.orders) == 1)
        refused = await door.client.post("/api/orchestrate", json=ASK)
        door.runner.gate.set()
        assert (await first).status_code == 200
        assert len(await door.rows()) == 1
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert "rejected runs_full" in door.metrics.counted


@pytest.mark.parametrize("mode", ["wait", "stream"])
@pytest.mark.parametrize(
    ("fault", "status", "code"), [("down", 503, "store_unavailable"), ("full", 507, "store_full")]
)
async def test_a_store_that_takes_nothing_acknowledges_nothing(
    mode: str, fault: str, status: int, code: str
) -> None:
    async with front_door() as door:
        door.runner.errors = [STATED[fault]]
        setattr(door.faults, fault, STATED[fault])
        answer = await door.client.post("/api/orchestrate", json={**ASK, "mode": mode})
        assert await door.rows() == []
    assert answer.status_code == status and answer.json()["error"]["code"] == code
    assert int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["retryable"] is True
    assert "queued" not in door.metrics.counted


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_runner_that_dies_changes_nothing_for_the_client(mode: str) -> None:
    async with front_door() as door:
        door.runner.errors, door.runner.lost_after = [RunnerLost("died")], 2
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "mode": mode}))
        await until(lambda: door.runner.left == 1)
        await door.runner.take_over("run-1")
        answer = await call
    assert answer.status_code == 200 and len(door.runner.asked) == 1
    if mode == "stream":
        durable = [(name, int(seq or 0)) for name, seq, _ in events_of(answer.text) if name != "node.token"]
        assert durable == list(zip(DURABLE, range(1, 6), strict=True))


async def test_an_end_that_the_dead_runner_committed_is_told() -> None:
    async with front_door() as door:
        door.runner.errors, door.runner.lost_after = [RunnerLost("died")], 1
        door.runner.story = lambda order: [run_result(order, answer="from the store")]
        answer = await door.client.post("/api/orchestrate", json=ASK)
    assert answer.json()["answer"] == "from the store" and len(door.runner.asked) == 1


async def test_a_run_that_began_and_failed_is_an_answer_that_says_so() -> None:
    async with front_door() as door:
        door.runner.story = failed_story
        answer = await door.client.post("/api/orchestrate", json=ASK)
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "failed" and body["run_id"] == "run-1"
    assert body["error"]["code"] == "provider_error" and body["error"]["fault"] == "timeout"


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_run_that_waits_for_a_human_answers_with_its_question(mode: str) -> None:
    async with front_door() as door:
        door.runner.story = waiting_story
        answer = await door.client.post("/api/orchestrate", json={**ASK, "mode": mode})
    assert answer.status_code == 200
    if mode == "stream":
        name, _, event = events_of(answer.text)[-1]
        assert name == "run.waiting" and event["data"]["waiting"]["question"] == "Send it?"
    else:
        assert answer.json()["status"] == "waiting"
        assert answer.json()["waiting"]["actions"] == ["approve", "edit", "reject"]


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound("no such flow"), 404), (InternalError("bug"), 500), (KeyError("x"), 500)]
)
async def test_a_run_that_no_runner_can_run_is_an_error_and_nothing_is_written(
    error: Exception, status: int
) -> None:
    async with front_door() as door:
        door.runner.errors = [error]
        answer = await door.client.post("/api/orchestrate", json=ASK)
        assert answer.status_code == status and await door.rows() == []


async def test_clients_are_told_after_the_deadline_and_nothing_is_written() -> None:
    async with front_door(grace_s=1) as door:
        door.runner.gate = asyncio.Event()
        ask = {**ASK, "deadline_s": 10}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await until(lambda: "run-1" in door.runner.held)
        skip_time(11)
        whole = await call
        async with sse(door.app, "/api/orchestrate", body={**ask, "stream": True}) as streamed:
            await until(lambda: bool(streamed.events))
            skip_time(11)
            await streamed.over()
        assert [row["status"] for row in await door.rows()] == ["running", "running"]
    assert whole.status_code == 504 and whole.json()["error"]["param"] == "deadline_s"
    name, _, data = streamed.events[-1]
    assert name == "error" and data["error"]["code"] == "budget_exceeded"


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_client_that_leaves_does_not_stop_its_run(mode: str) -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json={**ASK, "mode": mode}))
        await until(lambda: len(door.runner.orders) == 1)
        call.cancel()
        await asyncio.wait({call})
        assert door.runner.left == 0 and door.dispatch.live == 1
        door.runner.gate.set()
        await until(lambda: door.dispatch.live == 0)
        assert (await door.row())["status"] == "completed"
    assert door.runner.left == 0 and door.runner.cancelled == []


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_unless_it_said_so(mode: str) -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        ask = {**ASK, "mode": mode, "on_disconnect": "cancel"}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await until(lambda: "run-1" in door.runner.held)
        call.cancel()
        await until(lambda: door.dispatch.live == 0)
        row = await door.row()
        assert row["status"] == "cancelled" and row["cancel_requested"] is True
    # Written first, then told: whoever is not told reads it.
    assert door.faults.asked.index("cancel") >= 0 and door.runner.cancelled == ["run-1"]


async def test_a_run_that_was_left_while_it_queued_is_cancelled_in_the_store() -> None:
    async with front_door() as door:
        door.runner.errors = [full_house()]
        ask = {**ASK, "on_disconnect": "cancel"}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await until(lambda: door.runner.woken == 1)
        call.cancel()
        await until(lambda: door.dispatch.live == 0)
        assert (await door.row())["status"] == "cancelled"


async def test_a_run_that_was_left_before_anybody_accepted_it_is_none() -> None:
    async with front_door() as door:
        stuck = asyncio.Event()

        async def silent(order: RunOrder | str) -> Any:
            door.runner.asked.append(order)
            await stuck.wait()
            yield []

        door.runner.run = silent  # type: ignore[method-assign]
        ask = {**ASK, "on_disconnect": "cancel"}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await asked(door)
        call.cancel()
        await until(lambda: door.dispatch.live == 0)
        assert await door.rows() == []


async def test_a_runner_that_keeps_silent_is_not_waited_for_with_accepting() -> None:
    async with front_door(silence_s=0.02) as door:
        stuck = asyncio.Event()

        async def silent(order: RunOrder | str) -> Any:
            door.runner.asked.append(order)
            await stuck.wait()
            yield []

        door.runner.run = silent  # type: ignore[method-assign]
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: door.runner.woken == 1)
        await door.runner.work_queue()
        assert (await call).json()["answer"] == "85"


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_silent_runner_and_a_store_that_is_away_acknowledge_nothing(mode: str) -> None:
    async with front_door(silence_s=0.02) as door:
        stuck = asyncio.Event()
        closed = []

        async def silent(order: RunOrder | str) -> Any:
            try:
                await stuck.wait()
                yield []
            finally:
                closed.append(order)

        door.runner.run = silent  # type: ignore[method-assign]
        door.faults.down = STATED["down"]
        async with asyncio.timeout(paced(5)):
            answer = await door.client.post("/api/orchestrate", json={**ASK, "mode": mode})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "store_unavailable"
        # Nor does the runner begin it later.
        await until(lambda: len(closed) == 1 and door.dispatch.live == 0)
        assert await door.rows() == []


async def test_a_stream_is_not_begun_before_its_run_is_committed() -> None:
    async with front_door(silence_s=PATIENCE_S) as door:
        stuck = asyncio.Event()

        async def silent(order: RunOrder | str) -> Any:
            door.runner.asked.append(order)
            await stuck.wait()
            yield []

        door.runner.run = silent  # type: ignore[method-assign]
        door.faults.down = STATED["down"]
        async with sse(door.app, "/api/orchestrate", body={**ASK, "stream": True}) as reader:
            await asked(door)
            # As long as direct mode waits before it begins a silent stream: long enough for that to show.
            skip_time(PATIENCE_S)
            await until(lambda: "accept" in door.faults.asked)
            await asyncio.sleep(0.1)
            assert reader.status == 0 and await door.rows() == []


async def test_a_run_that_another_runner_has_is_followed_in_the_store() -> None:
    async with front_door() as door:
        door.runner.errors = [Conflict("taken already", param="run_id")]
        door.runner.story = lambda order: [run_result(order, answer="by the other")]
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: door.runner.woken == 1)
        await door.runner.work_queue()
        answer = await call
    assert answer.status_code == 200 and answer.json()["answer"] == "by the other"
    assert len(door.runner.asked) == 1


async def test_a_store_that_is_away_while_a_run_is_followed_is_waited_for() -> None:
    async with front_door() as door:
        door.runner.errors = [full_house()]
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: "tail" in door.faults.asked)
        door.faults.down = STATED["down"]
        await door.runner.work_queue()
        seen = len(door.faults.asked)
        await until(lambda: len(door.faults.asked) > seen)
        door.faults.down = None
        assert (await call).json()["answer"] == "85"


async def test_a_front_door_that_stops_says_that_the_run_goes_on() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: len(door.runner.orders) == 1)
        await door.dispatch.aclose()
        answer = await call
    assert answer.status_code == 429 and "goes on" in answer.json()["error"]["message"]
