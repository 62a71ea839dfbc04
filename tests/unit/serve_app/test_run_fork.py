"""POST /api/runs/{run_id}/fork, and the state that it starts from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.actors.running.forking import Lab
from tests.unit.flows.fakes import QUESTION
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door

ASK = {"prompt": QUESTION, "flow_type": "challenge"}
KEYED = {"Idempotency-Key": "mine-1"}


async def ran(door: FrontDoor) -> Lab:
    """run-1 with the checkpoints of a real execution."""
    assert (await door.client.post("/api/runs", json=ASK)).status_code == 202
    lab = Lab("challenge", store=door.store)
    await lab.finish("run-1")
    return lab


async def fork(door: FrontDoor, body: Any = None, **headers: str) -> Any:
    return await door.client.post("/api/runs/run-1/fork", json=body, headers=headers)


async def test_a_fork_is_a_new_run_that_begins_where_the_other_was() -> None:
    async with front_door() as door:
        lab = await ran(door)
        answer = await fork(door, {"state": {"outputs": {"creator": "edited"}}})
        row = await door.row("run-2")
        state = (await door.client.get("/api/runs/run-2?state=true&log=false")).json()
        listed = (await door.client.get("/api/runs?parent=run-1")).json()["runs"]
        result = await lab.finish("run-2")
    body = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == "/api/runs/run-2"
    assert (body["run_id"], body["parent"], body["status"]) == ("run-2", "run-1", "queued")
    assert body["flow_version"] == row["flow_version"] and row["request"]["prompt"] == QUESTION
    assert row["parent"] == "run-1" and [run["run_id"] for run in listed] == ["run-2"]
    assert state["state"]["outputs"]["creator"] == "edited" and state["state"]["run_id"] == "run-2"
    assert len(state["checkpoints"]) == 1
    assert result.status == "completed" and door.runner.woken >= 1


async def test_from_any_checkpoint_with_other_fields_of_the_request() -> None:
    async with front_door() as door:
        await ran(door)
        shown = (await door.client.get("/api/runs/run-1?state=true")).json()["checkpoints"]
        answer = await fork(
            door,
            {
                "checkpoint_id": shown[-1]["checkpoint_id"],
                "request": {"seed": 7, "priority": 5, "deadline_s": 9.0},
            },
        )
        row = await door.row("run-2")
        state = (await door.client.get("/api/runs/run-2?state=true")).json()
    assert shown[-1]["next"] == ["creator"] and shown[0]["next"] == []
    assert state["next"] == ["creator"] and state["state"]["outputs"] == {}
    assert answer.status_code == 202 and row["request"]["seed"] == 7 and row["priority"] == 5
    assert 0 < row["deadline_at"] - row["created_at"] <= 9.0


async def test_another_prompt_is_what_the_rest_of_the_run_answers() -> None:
    async with front_door() as door:
        await ran(door)
        shown = (await door.client.get("/api/runs/run-1?state=true")).json()["checkpoints"]
        asked = {"prompt": "What is 11 + 12?", "input": {"rounds": 1}}
        await fork(door, {"checkpoint_id": shown[-1]["checkpoint_id"], "request": asked})
        state = (await door.client.get("/api/runs/run-2?state=true")).json()["state"]
        row = await door.row("run-2")
    assert state["input"]["prompt"] == row["request"]["prompt"] == "What is 11 + 12?"
    assert state["input"]["rounds"] == 1


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_fork_can_be_waited_for(mode: str) -> None:
    async with front_door() as door:
        await ran(door)
        answer = await fork(door, {"mode": mode})
    assert answer.status_code == 200
    if mode == "wait":
        assert answer.json()["run_id"] == "run-2" and answer.json()["status"] == "completed"
    else:
        name, seq, event = events_of(answer.text)[0]
        assert (name, seq, event["data"]["parent"]) == ("run.queued", "1", "run-1")


async def test_duplicates_of_a_fork_are_one_run() -> None:
    async with front_door() as door:
        await ran(door)
        answers = await asyncio.gather(*(fork(door, {}, **KEYED) for _ in range(10)))
        other = await fork(door, {"mode": "wait"}, **KEYED)
        rows = await door.rows()
    assert {answer.json()["parent"] for answer in answers} == {"run-1"} and len(rows) == 2
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 9
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"checkpoint_id": "none"}, 404, "checkpoint_id"),
        ({"state": {"results": []}}, 400, "state.results"),
        ({"state": {"outputs": {"nobody": "x"}}}, 400, "state.outputs.nobody"),
        ({"request": {"prompt": "x"}, "state": {"input": 5}}, 400, "state.input"),
        ({"request": {"prompt": "x"}}, 400, "checkpoint_id"),
        ({"state": {"input": {"prompt": "x"}}}, 400, "checkpoint_id"),
        ({"request": {"prompt": "x"}, "state": {"input": None}}, 400, "state.input"),
        ({"request": {"input": {"rounds": 1}}, "state": {"input": []}}, 400, "state.input"),
        ({"request": {"flow_type": "linear"}}, 400, "request.flow_type"),
        ({"request": {"speed": 1}}, 400, "request.speed"),
        ({"request": {"seed": True}}, 400, "request.seed"),
        ({"request": {"models": {"king": "nano-m"}}}, 400, "models.king"),
        ({"mode": "later"}, 400, "mode"),
        ({"checkpoint": "x"}, 400, "checkpoint"),
    ],
)
async def test_forks_that_cannot_be(body: dict[str, Any], status: int, param: str) -> None:
    async with front_door() as door:
        await ran(door)
        answer = await fork(door, body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert len(await door.rows()) == 1


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 4000])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"state": {"scores": {"creator": %s}}}', "state.scores.creator"),
        ('{"state": {"input": {"rounds": [1, %s]}}}', "state.input.rounds.1"),
        ('{"request": {"budget_usd": %s}}', "request.budget_usd"),
    ],
)
async def test_numbers_that_json_does_not_know_are_not_taken(number: str, body: str, param: str) -> None:
    async with front_door() as door:
        await ran(door)
        answer = await door.client.post("/api/runs/run-1/fork", content=body % number)
        fine = await fork(door, {"state": {"outputs": {"creator": "NaN, Infinity or 1e999"}}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert fine.status_code == 202


async def test_unknown_runs_and_runs_that_never_began() -> None:
    async with front_door() as door:
        await door.client.post("/api/runs", json=ASK)
        never = await fork(door)
        unknown = await door.client.post("/api/runs/run-9/fork")
        empty = (await door.client.get("/api/runs/run-1?state=true")).json()
    assert (never.status_code, never.json()["error"]["param"]) == (404, "checkpoint_id")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "run_id")
    assert empty["state"] is None and empty["checkpoints"] == []


async def test_a_fork_stays_with_the_version_that_its_run_is_pinned_to() -> None:
    async with front_door() as door:
        lab = await ran(door)
        old = lab.flow.model_copy(update={"description": "as it was before"})
        spec = old.model_dump(mode="json")

        async def flow_spec(version: str) -> dict[str, Any] | None:
            return spec if version == old.version else None

        async def get(run_id: str, tenant: str) -> dict[str, Any] | None:
            row = await door.store.get(run_id, tenant)
            return row and {**row, "flow_version": old.version if run_id == "run-1" else row["flow_version"]}

        door.faults.flow_spec, door.faults.get = flow_spec, get  # type: ignore[attr-defined]
        assert old.version != lab.flow.version
        answer = await fork(door)
        kept = await door.row("run-2")
        spec = {"name": "challenge", "kind": "from the future"}
        refused = await fork(door)
    assert answer.json()["flow_version"] == old.version == kept["flow_version"]
    assert refused.status_code == 409 and refused.json()["error"]["param"] == "flow_version"


async def test_a_full_queue_takes_no_forks_either() -> None:
    async with front_door(max_queued_runs=1) as door:
        await ran(door)
        answer = await fork(door)
    assert answer.status_code == 429
