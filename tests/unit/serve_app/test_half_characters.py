"""A provider that sends half a character, from its wire to everybody who reads the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.engines.openai_compatible import OpenAICompatibleEngine
from actors.engines.script import Script, ScriptedAnswer
from actors.engines.scripted_server import ScriptedServer
from actors.gateway.engine_completer import EngineCompleter
from actors.gateway.local_gateway import local_gateway
from actors.running.ports import GpuResources
from actors.running.run_execution import RunExecution, RunParts
from actors.stores.store import Store
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink
from flows.builder import FlowGraphs
from flows.ports import Generator
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import NodeResult
from registries.specs import ModelSpec
from tests.unit.actors.engines.test_openai_compatible import spec
from tests.unit.serve_app.front_door import events_of, front_door
from tests.unit.serve_app.scripted_runner import CATALOG

SAID, SHOWN = "It is 85 \ud83d", "It is 85 \ufffd"


class NoPlacement:
    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        raise AssertionError("this flow places nothing")


@asynccontextmanager
async def gateway_to(server: ScriptedServer, home: Path) -> AsyncIterator[Generator]:
    """The real gateway; every model is the server's."""
    config = RuntimeConfig(home=str(home))

    def make(_: ModelSpec) -> EngineCompleter:
        return EngineCompleter(lambda: OpenAICompatibleEngine(spec(server.base_url), config))

    gateway = await local_gateway(config, CATALOG, make=make)
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def work_queue(store: Store, generator: Generator, outputs: Path) -> None:
    """Take the run in the queue, and run it to its end as a runner does."""
    [claimed] = await store.claim_next("runner", 60.0, 3, 1)
    parts = RunParts(
        generator=generator,
        store=store,
        graphs=FlowGraphs(CATALOG),
        metrics=Metrics(NullSink(), "test"),
        placement=lambda events, generator, check_held: NoPlacement(),
        resources=GpuResources(6.0),
        outputs_root=outputs,
        linger_s=lambda: 0.001,
    )
    flow = CATALOG.flows.get(claimed.order.request.flow_type)
    run = RunExecution(claimed, flow, parts)
    run.task = asyncio.create_task(run.work())
    await run.task
    assert run.error is None


async def test_a_run_ends_and_is_shown_everywhere(tmp_path: Path) -> None:
    script = Script(answers=(ScriptedAnswer(texts=(SAID,)),))
    async with (
        ScriptedServer(script) as server,
        gateway_to(server, tmp_path / "home") as gateway,
        front_door() as door,
    ):
        ask = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
        assert (await door.client.post("/api/runs", json=ask)).status_code == 202
        following = asyncio.create_task(door.client.get("/api/runs/run-1/events"))
        await work_queue(door.store, gateway, tmp_path / "outputs")
        streamed = await asyncio.wait_for(following, 20)
        detail = (await door.client.get("/api/runs/run-1", params={"state": "true"})).json()
        listed = (await door.client.get("/api/runs")).json()["runs"]
    assert detail["status"] == "completed" and detail["answer"] == SHOWN
    assert listed[0]["answer"] == SHOWN
    last = events_of(streamed.text)[-1]
    assert last[0] == "run.completed" and last[2]["data"]["result"]["answer"] == SHOWN
    assert json.loads(Path(detail["artifact"]).read_text(encoding="utf-8"))["answer"] == SHOWN


@pytest.mark.parametrize("place", ["prompt", "metadata", "input"])
async def test_half_a_character_in_a_request_is_refused(place: str) -> None:
    value = {"prompt": SAID, "metadata": {"note": SAID}, "input": {"question": SAID}}[place]
    body = json.dumps({"prompt": "x", "flow_type": "challenge", place: value})
    async with front_door() as door:
        answer = await door.client.post("/api/runs", content=body)
        assert answer.status_code == 400 and await door.rows() == []
