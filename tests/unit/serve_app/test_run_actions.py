"""POST /api/runs/{run_id}/cancel, restart, resume, feedback."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from registries.contracts.errors import CapacityError, StoreError, StoreFull
from registries.contracts.runs import RunOrder, RunResult, Waiting
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door, until
from tests.unit.serve_app.scripted_runner import Step, failed_story, run_result, waiting_story

ASK = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}


async def post(door: FrontDoor, action: str, body: Any = None, run_id: str = "run-1") -> Any:
    return await door.client.post(f"/api/runs/{run_id}/{action}", json=body)


async def ended(door: FrontDoor, story: Any) -> None:
    door.runner.story = story
    assert (await door.client.post("/api/orchestrate", json=ASK)).status_code == 200


# -- cancel


async def test_a_queued_run_is_cancelled_at_once_and_again() -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        first, second = await post(door, "cancel"), await post(door, "cancel")
    assert (first.status_code, first.json()) == (200, {"run_id": "run-1", "status": "cancelled"})
    assert (second.status_code, second.json()) == (200, first.json())
    assert door.runner.cancelled == []


async def test_a_running_run_is_marked_and_its_runner_told() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: "run-1" in door.runner.held)
        answer = await post(door, "cancel")
        result = (await call).json()
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert result["status"] == "cancelled" and door.runner.cancelled == ["run-1"]


async def test_a_runner_that_is_not_told_reads_it() -> None:
    async with front_door() as door:
        door.runner.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: "run-1" in door.runner.held)

        async def cancel(run_id: str) -> None:
            door.runner.cancelled.append(run_id)
            raise CapacityError("nobody there")

        door.runner.cancel = cancel  # type: ignore[method-assign]
        answer = await post(door, "cancel")
        await until(lambda: door.runner.cancelled == ["run-1"])
        assert answer.status_code == 202 and (await door.row())["cancel_requested"] is True
        door.runner.gate.set()
        await call


async def test_a_waiting_run_is_cancelled_at_once() -> None:
    async with front_door() as door:
        await ended(door, waiting_story)
        answer = await post(door, "cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize("story", [failed_story, None])
async def test_a_run_that_ended_cannot_be_cancelled(story: Any) -> None:
    async with front_door() as door:
        await ended(door, story or door.runner.story)
        answer = await post(door, "cancel")
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "conflict"


# -- restart


async def test_a_failed_run_is_restarted_in_the_background() -> None:
    async with front_door() as door:
        await ended(door, failed_story)
        answer = await post(door, "restart")
        assert answer.status_code == 202 and answer.headers["location"] == "/api/runs/run-1"
        assert answer.json()["run_id"] == "run-1" and answer.json()["status"] == "queued"
        await until(lambda: door.runner.woken == 1)
        await door.runner.work_queue()
        row = await door.row()
    assert row["status"] == "completed" and row["attempts"] == 2


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_or_waited_for(mode: str) -> None:
    async with front_door() as door:
        await ended(door, failed_story)
        answer = await post(door, "restart", {"mode": mode, "deadline_s": 60})
        row = await door.row()
    assert answer.status_code == 200 and 0 < row["deadline_at"] - row["finished_at"] <= 60
    if mode == "wait":
        assert answer.json()["answer"] == "at last"
    else:
        # From the restart on: an earlier end in its past does not end the stream.
        events = [(name, seq) for name, seq, _ in events_of(answer.text)]
        assert events[0][0] == "run.restarted" and events[-1][0] == "run.completed"
        seqs = [int(seq or 0) for _, seq in events]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_a_restart_that_no_runner_takes_at_once_is_followed() -> None:
    async with front_door() as door:
        await ended(door, failed_story)
        door.runner.errors = [CapacityError("full")]
        call = asyncio.create_task(post(door, "restart", {"mode": "wait"}))
        await until(lambda: door.runner.woken == 1)
        await door.runner.work_queue()
        assert (await call).json()["answer"] == "at last"


@pytest.mark.parametrize("mode", ["wait", "stream"])
@pytest.mark.parametrize(
    ("action", "story", "stays"), [("restart", failed_story, "failed"), ("resume", waiting_story, "waiting")]
)
async def test_what_is_refused_for_want_of_room_is_not_done(
    mode: str, action: str, story: Any, stays: str
) -> None:
    async with front_door(runner_max_ongoing=1, runner_max_replicas=1, runner_max_queued=0) as door:
        await ended(door, story)
        await until(lambda: door.dispatch.live == 0)
        door.runner.gate = asyncio.Event()
        other = asyncio.create_task(door.client.post("/api/orchestrate", json=ASK))
        await until(lambda: "run-2" in door.runner.held)
        body = {"mode": mode, **({"action": "approve"} if action == "resume" else {})}
        refused = await post(door, action, body)
        assert refused.status_code == 429 and (await door.row())["status"] == stays
        door.runner.gate.set()
        await other
        await until(lambda: door.dispatch.live == 0)
        assert (await post(door, action, body)).status_code == 200


@pytest.mark.parametrize("story", [waiting_story, None])
async def test_only_a_failed_run_can_be_restarted(story: Any) -> None:
    async with front_door() as door:
        await ended(door, story or door.runner.story)
        answer = await post(door, "restart", {})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "run_id"


# -- resume


@pytest.mark.parametrize(
    "decision",
    [{"action": "approve"}, {"action": "edit", "text": "84"}, {"action": "reject", "comment": "no"}],
)
async def test_a_waiting_run_goes_on_with_a_decision(decision: dict[str, Any]) -> None:
    async with front_door() as door:
        await ended(door, waiting_story)
        answer = await post(door, "resume", decision)
        assert answer.status_code == 202 and answer.json()["status"] == "queued"
        await door.runner.work_queue()
        assert (await door.row())["status"] == "completed"
        events = await door.store.events("run-1", "default")
    resumed = next(event for event in events if event.type == "run.resumed")
    assert resumed.data["decision"]["action"] == decision["action"]


async def test_a_resumed_run_can_be_waited_for() -> None:
    async with front_door() as door:
        await ended(door, waiting_story)
        answer = await post(door, "resume", {"action": "approve", "mode": "wait"})
    assert answer.status_code == 200 and answer.json()["answer"] == "approved"


def asks_twice(order: RunOrder) -> Sequence[list[Step] | RunResult]:
    """A second text goes to the human when the first was answered."""
    if order.attempt > 2:
        return [run_result(order, answer="approved")]
    text = "75" if order.attempt == 1 else "8" * 500
    asked = Waiting(node="approval", interrupt_id=f"i-{order.attempt}", text=text, question="Send it?")
    return [
        [("node.started", "approval", {})],
        run_result(order, status="waiting", answer="", waiting=asked),
    ]


@pytest.mark.parametrize("mode", ["background", "wait", "stream"])
async def test_a_decision_for_an_answered_question_is_not_taken_for_the_next(mode: str) -> None:
    async with front_door() as door:
        await ended(door, asks_twice)
        reject = {"action": "reject", "interrupt_id": "i-1", "mode": "wait"}
        assert (await post(door, "resume", reject)).json()["waiting"]["interrupt_id"] == "i-2"
        late = {"action": "approve", "interrupt_id": "i-1", "mode": mode}
        refused = await post(door, "resume", late)
        row = await door.row()
        assert row["status"] == "waiting" and row["waiting"]["interrupt_id"] == "i-2"
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (409, "conflict", "interrupt_id")
        for said in ("'i-1'", "not taken", "'i-2'", "node approval", "Send it?", "888…"):
            assert said in error["message"]
        assert len(error["message"]) < 600, "a text may be long"
        answer = await post(door, "resume", {**late, "interrupt_id": "i-2", "mode": "wait"})
    assert answer.status_code == 200 and answer.json()["answer"] == "approved"


async def test_a_decision_is_repeated_by_its_key_whatever_is_asked_meanwhile() -> None:
    async with front_door() as door:
        await ended(door, asks_twice)
        path, keyed = "/api/runs/run-1/resume", {"Idempotency-Key": "mine-1"}
        body = {"action": "reject", "interrupt_id": "i-1"}
        first = await door.client.post(path, json=body, headers=keyed)
        await door.runner.work_queue()
        again = await door.client.post(path, json=body, headers=keyed)
        assert (await door.row())["waiting"]["interrupt_id"] == "i-2"
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_decision_without_a_question_answers_the_one_that_is_asked() -> None:
    async with front_door() as door:
        await ended(door, asks_twice)
        await post(door, "resume", {"action": "approve", "mode": "wait"})
        answer = await post(door, "resume", {"action": "approve", "interrupt_id": None, "mode": "wait"})
    assert answer.json()["answer"] == "approved"


async def test_a_run_that_does_not_wait_cannot_be_resumed() -> None:
    async with front_door() as door:
        await ended(door, failed_story)
        answer = await post(door, "resume", {"action": "approve"})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "conflict"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "action"),
        ({"action": "maybe"}, "action"),
        ({"action": "edit"}, "body"),
        ({"action": "edit", "text": ""}, "body"),
        ({"action": "edit", "text": " \n"}, "body"),
        ({"action": "approve", "text": "x"}, "body"),
        ({"action": "approve", "deadline_s": True}, "deadline_s"),
        ({"action": "approve", "deadline_s": 0}, "deadline_s"),
        ({"action": "approve", "mode": "later"}, "mode"),
        ({"action": "approve", "interrupt": 1}, "interrupt"),
        ({"action": "approve", "interrupt_id": ""}, "interrupt_id"),
        ({"action": "approve", "interrupt_id": 1}, "interrupt_id"),
    ],
)
async def test_decisions_that_are_none(body: dict[str, Any], param: str) -> None:
    async with front_door() as door:
        await ended(door, waiting_story)
        answer = await post(door, "resume", body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert (await door.row())["status"] == "waiting"


# -- feedback


async def test_a_rating_is_kept_and_replaced() -> None:
    async with front_door() as door:
        await ended(door, door.runner.story)
        first = await post(door, "feedback", {"rating": 0.25, "comment": "meh"})
        await post(door, "feedback", {"rating": 1})
        given = (await door.row())["feedback"]
    assert (first.status_code, first.json()) == (200, {"run_id": "run-1", "rating": 0.25, "comment": "meh"})
    assert [(one["user"], one["rating"], one["comment"]) for one in given] == [("admin", 1.0, None)]


async def test_a_rating_is_given_once_a_key() -> None:
    async with front_door() as door:
        await ended(door, door.runner.story)
        path, keyed = "/api/runs/run-1/feedback", {"Idempotency-Key": "mine-1"}
        first = await door.client.post(path, json={"rating": 0.25}, headers=keyed)
        await post(door, "feedback", {"rating": 1})
        late = await door.client.post(path, json={"rating": 0.25}, headers=keyed)
        another = await door.client.post(path, json={"rating": 0}, headers=keyed)
        (given,) = (await door.row())["feedback"]
    assert late.status_code == 200 and late.json() == first.json()
    assert (another.status_code, another.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert given["rating"] == 1


@pytest.mark.parametrize(
    "body", [{"rating": 1.1}, {"rating": -0.1}, {"rating": True}, {"rating": "good"}, {}]
)
async def test_ratings_that_are_none(body: dict[str, Any]) -> None:
    async with front_door() as door:
        await ended(door, door.runner.story)
        answer = await post(door, "feedback", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rating")


# -- all of them

BODIES: dict[str, Any] = {
    "cancel": None,
    "restart": {},
    "resume": {"action": "approve"},
    "feedback": {"rating": 1},
}


@pytest.mark.parametrize("action", BODIES)
async def test_unknown_runs_are_404(action: str) -> None:
    async with front_door() as door:
        answer = await post(door, action, BODIES[action], run_id="run-9")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "run_id")


@pytest.mark.parametrize("action", BODIES)
@pytest.mark.parametrize(
    ("fault", "error", "status"), [("down", StoreError("away"), 503), ("full", StoreFull("no space"), 507)]
)
async def test_nothing_is_acknowledged_that_is_not_written(
    action: str, fault: str, error: Exception, status: int
) -> None:
    async with front_door() as door:
        await ended(door, waiting_story if action != "restart" else failed_story)
        setattr(door.faults, fault, error)
        answer = await post(door, action, BODIES[action])
    assert answer.status_code == status and int(answer.headers["retry-after"]) >= 1
