"""Flows on the real FlowRunner, over its Serve handle."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from registries.contracts.errors import NotFound
from registries.contracts.runs import TERMINAL_EVENTS, RunEvent, RunOrder, RunRequest, RunResult
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster


def order(flow: str, deadline_s: float = 30, **request: Any) -> RunOrder:
    run_id = uuid.uuid4().hex
    asked = RunRequest(**{"prompt": "What is 48 + 37?", "flow_type": flow, **request})
    return RunOrder(run_id=run_id, request_id=f"req-{run_id}", request=asked, deadline_s=deadline_s)


async def collect(runner: Any, asked: RunOrder | str) -> list[RunEvent]:
    events: list[RunEvent] = []
    async for batch in runner.run.remote(asked):
        events.extend(batch)
    return events


def result_of(events: list[RunEvent]) -> RunResult:
    assert events[-1].type in TERMINAL_EVENTS
    return RunResult.model_validate(events[-1].data["result"])


def durable(events: list[RunEvent]) -> list[RunEvent]:
    return [e for e in events if e.type != "node.token"]


@pytest.mark.parametrize("flow", ["linear", "challenge", "multi_perspective"])
async def test_each_flow_runs_to_its_end(runner: Any, driver: RunningCluster, flow: str) -> None:
    asked = order(flow, target="85")
    events = await collect(runner, asked)
    result = result_of(events)
    assert result.status == "completed", result.error
    assert result.answer
    assert events[0].type == "run.started"
    # The first event, run.queued, is written with the acceptance; a runner tells from its claim on.
    assert [e.seq for e in durable(events)] == list(range(2, len(durable(events)) + 2))
    assert all(e.run_id == asked.run_id for e in events)
    artifact = json.loads(Path(result.artifact or "").read_text())
    assert artifact["execution_id"] == asked.run_id and artifact["answer"] == result.answer
    assert Path(result.artifact or "").parent.name == f"{flow}_flows"
    store = await open_store(driver.config)
    stored = await store.get(asked.run_id, "default")
    log = await store.events(asked.run_id, "default")
    await store.close()
    assert stored is not None and stored["status"] == "completed"
    assert stored["result"] == result.model_dump(mode="json")
    assert log[0].type == "run.queued" and log[1:] == durable(events)


async def test_tokens_stream_and_carry_the_last_seq(runner: Any, driver: RunningCluster) -> None:
    events = await collect(runner, order("challenge", models={"creator": "slow"}))
    tokens = [e for e in events if e.type == "node.token" and e.node == "creator"]
    done = next(e for e in events if e.type == "node.completed" and e.node == "creator")
    assert "".join(e.data["text"] for e in tokens) == done.data["text"]
    started = next(e for e in events if e.type == "node.started" and e.node == "creator")
    assert {e.seq for e in tokens} == {started.seq}


async def test_an_unknown_flow_is_a_typed_error(runner: Any) -> None:
    with pytest.raises(NotFound, match="chalenge"):
        await collect(runner, order("chalenge"))


async def test_the_deadline_ends_a_run_with_its_nodes(runner: Any) -> None:
    started = time.monotonic()
    deadline_s = paced(0.5)
    events = await collect(runner, order("challenge", deadline_s=deadline_s, models={"refiner": "endless"}))
    result = result_of(events)
    assert result.status == "failed" and result.error is not None
    assert result.error.code == "budget_exceeded"
    assert {"creator", "challenger"} <= {node.id for node in result.nodes}
    assert time.monotonic() - started < deadline_s + paced(3)


async def test_cancel_reaches_the_run_on_any_replica(runner: Any, driver: RunningCluster) -> None:
    asked = order("challenge", models={"creator": "endless"})
    events: list[RunEvent] = []

    async def listen() -> None:
        async for batch in runner.run.remote(asked):
            events.extend(batch)

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        await until(lambda: any(e.type == "node.token" for e in events), 10)
        answers = await asyncio.to_thread(
            lambda: runner.options(stream=False).broadcast("cancel", asked.run_id).results(timeout_s=paced(5))
        )
    assert any(answers)
    result = result_of(events)
    assert result.status == "cancelled" and result.error is not None and result.error.code == "cancelled"
    await model_is_idle("endless")


@pytest.mark.parametrize(("on_disconnect", "status"), [("cancel", "cancelled"), ("continue", "completed")])
async def test_what_a_leaving_reader_does(
    runner: Any, driver: RunningCluster, on_disconnect: str, status: str
) -> None:
    model = "endless" if on_disconnect == "cancel" else "slow"
    asked = order("challenge", models={"creator": model}, on_disconnect=on_disconnect)
    stream = runner.run.remote(asked)
    async for batch in stream:
        if any(e.type == "node.started" for e in batch):
            break
    stream.cancel()
    store = await open_store(driver.config)

    async def ended() -> bool:
        stored = await store.get(asked.run_id, "default")
        return stored is not None and stored["status"] == status

    await until(ended, 15)
    await store.close()
    await model_is_idle("endless")


async def test_a_failing_model_is_a_failed_run_with_the_cause(runner: Any) -> None:
    result = result_of(await collect(runner, order("challenge", deadline_s=6, models={"creator": "broken"})))
    assert result.status == "failed" and result.error is not None
    assert result.error.code in {"provider_error", "budget_exceeded", "capacity"}


async def test_many_runs_at_once(runner: Any) -> None:
    results = await asyncio.gather(*(collect(runner, order("challenge")) for _ in range(24)))
    assert {result_of(events).status for events in results} == {"completed"}


async def model_is_idle(key: str) -> None:
    from ray import serve

    from actors.model_replica import model_app_name

    handle = serve.get_deployment_handle("ModelReplica", app_name=model_app_name(key))

    async def idle() -> bool:
        return not (await handle.status.remote())["running"]

    await until(idle, 10)
