from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registries.contracts.errors import (
    CancelledRun,
    Conflict,
    Fault,
    InternalError,
    ProviderError,
    StoreError,
)
from registries.contracts.runs import ErrorFact, RunEvent, RunOrder, RunRequest
from serve_app.live_run import LiveRun
from serve_app.run_ports import RunnerLost
from tests.unit.serve_app.front_door import events_of, front_door, full_house, run_event, run_result, until

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}


async def test_a_run_is_accepted_and_answers_whole() -> None:
    async with front_door(default_deadline_s=77) as door:
        answer = await door.client.post(
            "/api/orchestrate",
            json={**ASK, "models": {"creator": "nano-m"}, "seed": 3},
            headers={"x-request-id": "req-9", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
        )
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "completed" and body["answer"] == "85"
    assert body["run_id"] == "run-1" and body["request_id"] == "req-9" and body["error"] is None
    order = door.runner.orders[0]
    assert order.request.models == {"creator": "nano-m"} and order.request.seed == 3
    assert 76 < order.deadline_s <= 77 and order.traceparent == f"00-{'a' * 32}-{'b' * 16}-01"
    assert type(order.request).__name__ == "RunRequest"
    assert "run-1" in door.store.rows and door.metrics.counted == ["queued"]


@pytest.mark.parametrize("asked", [{"stream": True}, {"mode": "stream"}, {"mode": "stream", "stream": True}])
async def test_streamed_runs_are_their_events_with_seq_as_id(asked: dict[str, Any]) -> None:
    async with front_door() as door:
        answer = await door.client.post("/api/orchestrate", json={**ASK, **asked})
    events = events_of(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [name for name, _, _ in events] == [
        "run.started",
        "node.started",
        "node.token",
        "node.completed",
        "run.completed",
    ]
    assert [seq for _, seq, _ in events] == ["1", "2", "2", "3", "4"]
    assert RunEvent.model_validate(events[0][2]).run_id == "run-1"
    assert events[-1][2]["data"]["result"]["answer"] == "85"


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_full_queue_of_runners_is_429_and_the_run_is_honestly_failed(mode: str) -> None:
    async with front_door() as door:
        door.runner.errors = [full_house()]
        answer = await door.client.post("/api/orchestrate", json={**ASK, "mode": mode})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "capacity"
    row = door.store.rows["run-1"]
    assert row["status"] == "failed" and row["result"]["error"]["code"] == "capacity"
    assert "rejected queue_full" in door.metrics.counted


async def test_beyond_the_limit_nothing_is_accepted() -> None:
    async with front_door(runner_max_ongoing=1, runner_max_replicas=1, runner_max_queued=0) as door:
        door.runner.gate = asyncio.Event()
        first = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: len(door.runner.orders) == 1)
        refused = await door.client.post("/api/orchestrate", json=ASK)
        door.runner.gate.set()
        assert (await first).status_code == 200
    assert refused.status_code == 429 and len(door.store.rows) == 1
    assert "rejected runs_full" in door.metrics.counted


async def test_a_store_that_is_down_acknowledges_nothing() -> None:
    async with front_door() as door:
        door.store.down = True
        answer = await door.client.post("/api/orchestrate", json=ASK)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "store_unavailable"
    assert answer.headers["retry-after"] == "1" and door.runner.orders == []


@pytest.mark.parametrize("mode", ["wait", "stream"])
@pytest.mark.parametrize("lost_after", [0, 2])
async def test_a_runner_that_dies_is_replaced_once(mode: str, lost_after: int) -> None:
    async with front_door() as door:
        door.runner.errors, door.runner.lost_after = [RunnerLost("died")], lost_after
        answer = await door.client.post("/api/orchestrate", json={**ASK, "mode": mode})
    assert answer.status_code == 200
    assert [order.attempt for order in door.runner.orders] == [1, 2]
    assert door.runner.orders[1].deadline_s <= door.runner.orders[0].deadline_s
    if mode == "stream":
        ends = [
            name for name, _, _ in events_of(answer.text) if name.startswith("run.") and name != "run.started"
        ]
        assert ends == ["run.completed"]


async def test_a_run_whose_runner_dies_twice_fails_with_our_error() -> None:
    async with front_door() as door:
        door.runner.errors = [RunnerLost("died"), RunnerLost("died")]
        whole = await door.client.post("/api/orchestrate", json=ASK)
        door.runner.errors, door.runner.lost_after = [RunnerLost("died"), RunnerLost("died")], 1
        streamed = await door.client.post("/api/orchestrate", json={**ASK, "stream": True})
    assert whole.status_code == 500 and whole.json()["error"]["code"] == "internal"
    assert door.store.rows["run-1"]["status"] == "failed"
    name, _, data = events_of(streamed.text)[-1]
    assert name == "run.failed" and data["data"]["result"]["error"]["code"] == "internal"


async def test_an_end_that_the_dead_runner_committed_is_told() -> None:
    async with front_door() as door:

        def story(order: RunOrder) -> list[list[RunEvent]]:
            result = run_result(order, answer="from the store").model_dump(mode="json")
            door.store.rows[order.run_id].update(status="completed", result=result)
            return [[run_event(order, 1, "run.started")]]

        door.runner.story, door.runner.errors, door.runner.lost_after = story, [RunnerLost("died")], 1
        answer = await door.client.post("/api/orchestrate", json=ASK)
    assert answer.json()["answer"] == "from the store" and len(door.runner.orders) == 1


async def test_a_run_that_began_and_failed_is_an_answer_that_says_so() -> None:
    failure = ErrorFact(code="provider_error", message="gone", retryable=True, fault="timeout")
    async with front_door() as door:

        def story(order: RunOrder) -> list[list[RunEvent]]:
            result = run_result(order, status="failed", answer="", error=failure).model_dump(mode="json")
            return [[run_event(order, 1, "run.started"), run_event(order, 2, "run.failed", result=result)]]

        door.runner.story = story
        answer = await door.client.post("/api/orchestrate", json=ASK)
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "failed" and body["run_id"] == "run-1"
    assert body["error"]["code"] == "provider_error" and body["error"]["fault"] == "timeout"


@pytest.mark.parametrize("error", [ProviderError("x", Fault.REFUSED), KeyError("ours"), CancelledRun("stop")])
async def test_errors_of_the_runner_end_the_run(error: Exception) -> None:
    async with front_door() as door:
        door.runner.errors = [error]
        answer = await door.client.post("/api/orchestrate", json=ASK)
    assert answer.status_code == {"KeyError": 500, "CancelledRun": 409}.get(type(error).__name__, 502)
    assert door.store.rows["run-1"]["status"] in ("failed", "cancelled")


async def test_a_run_that_never_ends_is_given_up_after_its_deadline() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        answer = await door.client.post("/api/orchestrate", json={**ASK, "deadline_s": 0.05})
    assert answer.status_code == 200 and answer.json()["error"]["param"] == "deadline_s"
    assert door.store.rows["run-1"]["status"] == "failed"


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
    assert door.runner.left == 0


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_unless_it_said_so(mode: str) -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        ask = {**ASK, "mode": mode, "on_disconnect": "cancel"}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await until(lambda: len(door.runner.orders) == 1)
        call.cancel()
        await until(lambda: door.runner.left == 1)
        await until(lambda: door.dispatch.live == 0)


async def test_a_run_that_was_left_before_any_runner_had_it_is_cancelled_in_the_store() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()

        def waiting(order: RunOrder) -> list[list[RunEvent]]:
            return [[], [run_event(order, 1, "run.started")]]

        door.runner.story = waiting
        ask = {**ASK, "on_disconnect": "cancel"}
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ask))
        await until(lambda: len(door.runner.orders) == 1)
        call.cancel()
        await until(lambda: door.store.rows["run-1"]["status"] == "cancelled")


async def test_a_run_is_read_from_the_store() -> None:
    async with front_door() as door:
        await door.client.post("/api/orchestrate", json=ASK)
        door.store.rows["run-1"].update(status="completed")
        found = await door.client.get("/api/runs/run-1")
        missing = await door.client.get("/api/runs/run-2")
    assert found.json()["run_id"] == "run-1" and found.json()["flow"] == "challenge"
    assert missing.status_code == 404 and missing.json()["error"]["param"] == "run_id"


async def test_an_end_that_cannot_be_written_is_told_all_the_same() -> None:
    async with front_door() as door:

        async def broken(*_: object) -> bool:
            raise StoreError("the disk is full")

        door.runner.errors = [InternalError("bug")]
        door.store.finish = broken  # type: ignore[assignment]
        answer = await door.client.post("/api/orchestrate", json=ASK)
    assert answer.status_code == 500


async def test_a_run_that_another_runner_has_is_followed_in_the_store() -> None:
    async with front_door() as door:
        door.runner.errors = [Conflict("taken already", param="run_id")]
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: len(door.runner.orders) == 1)
        result = run_result(door.runner.orders[0], answer="by the other").model_dump(mode="json")
        door.store.rows["run-1"].update(status="completed", result=result)
        answer = await call
    assert answer.status_code == 200 and answer.json()["answer"] == "by the other"
    assert len(door.runner.orders) == 1


async def test_a_reader_far_behind_loses_tokens_and_nothing_else() -> None:
    order = RunOrder(
        run_id="r", request_id="q", request=RunRequest(prompt="hi", flow_type="linear"), deadline_s=9
    )
    live = LiveRun(order, with_reader=True)
    for _ in range(5000):
        live.publish([run_event(order, 1, "node.token", "a", text="x")])
    end = run_result(order).model_dump(mode="json")
    live.publish(
        [run_event(order, 2, "node.completed", "a"), run_event(order, 3, "run.completed", result=end)]
    )
    live.publish([run_event(order, 4, "run.completed", result=end)])
    events = [event async for batch in live.events() for event in batch]
    assert len(events) == 2002 and [event.seq for event in events[-2:]] == [2, 3]
