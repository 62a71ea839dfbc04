"""The client and the real HTTP API, in one process, over a real store: the two agree on every route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from registries.contracts.errors import Conflict, KeyReused, NotFound, ValidationError
from registries.contracts.runs import RunEvent, RunRequest
from serve_app.client import AsyncClient, Connection, Retries
from tests.unit.actors.running.forking import Lab
from tests.unit.serve_app.client.torn_network import Bytes
from tests.unit.serve_app.front_door import KEY, FrontDoor, front_door, until
from tests.unit.serve_app.scripted_runner import failed_story, waiting_story

ASK = RunRequest(prompt="What is 48 + 37?", flow_type="challenge")


class Torn(httpx.AsyncBaseTransport):
    """Cuts the answers of the app; ``cuts`` are the bytes that arrive of one after the other."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self.cuts: list[int] = []
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        answer = await self._inner.handle_async_request(request)
        if not self.cuts:
            return answer
        body, cut = await answer.aread(), self.cuts.pop(0)
        if cut == 0:
            raise httpx.ReadError("nothing came back", request=request)
        if cut >= len(body):
            return httpx.Response(answer.status_code, headers=answer.headers, content=body)
        return httpx.Response(answer.status_code, stream=Bytes(body[:cut], torn=True))


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[FrontDoor, AsyncClient, Torn]]:
    async with front_door() as door:
        door.runner.works_when_woken = True
        network = Torn(door.app)
        here = Connection("http://t", KEY)
        async with AsyncClient(connection=here, transport=network, retries=Retries(base_s=0)) as client:
            yield door, client, network


def durable(events: list[RunEvent]) -> list[int]:
    return [event.seq for event in events if event.type != "node.token"]


def shape(value: Any) -> Any:
    """Its names at every depth: what it says changes from one moment to the next."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value[:1]] if isinstance(value, list) else type(value).__name__


async def test_a_run_is_waited_for_streamed_or_left_alone() -> None:
    async with served() as (_, client, _):
        assert (await client.run(ASK)).answer == "85"
        told = [event async for event in client.stream_run(ASK)]
        assert durable(told) == [1, 2, 3, 4, 5] and told[-1].data["result"]["answer"] == "85"
        assert [e.data["text"] for e in told if e.type == "node.token"] == ["85"]
        made = await client.create_run(ASK)
        assert made.status == "queued" and made.links["events"] == f"/api/runs/{made.run_id}/events"
        run = await client.wait_for(made.run_id, timeout_s=5)
        assert run.status == "completed" and run.outcome.answer == "85" and run.execution_log == ()
        whole = await client.get_run(made.run_id)
        assert [e.type for e in whole.execution_log][-1] == "run.completed" and whole.attempts == 1
        assert whole.cost_usd == 0.0 and whole.request["prompt"] == ASK.prompt


async def test_runs_are_listed_page_by_page_and_rated() -> None:
    async with served() as (_, client, _):
        for _ in range(5):
            await client.run(ASK)
        page = await client.runs(limit=2, status=("completed", "failed"), flow="challenge")
        assert [row.run_id for row in page.runs] == ["run-5", "run-4"] and page.runs[0].prompt == ASK.prompt
        assert [row.run_id async for row in client.iter_runs(limit=2)] == [
            f"run-{n}" for n in (5, 4, 3, 2, 1)
        ]
        assert [row.run_id async for row in client.iter_runs(status="waiting")] == []
        assert (await client.give_feedback("run-1", 0.25, "so so")).rating == 0.25
        (given,) = (await client.get_run("run-1")).feedback
        assert (given.rating, given.comment, given.user) == (0.25, "so so", "admin")
        figures = await client.stats(hours=1)
        assert figures.totals.runs == figures.by_flow["challenge"].runs == 5
        assert figures.totals.satisfaction.avg == 0.25 and figures.totals.latency_s.count == 5
        assert sum(point.runs for point in figures.trend) == 5 and figures.until - figures.since == 3600
        own = await client.user_stats("admin", hours=1)
        assert own.user == "admin" and own.totals.runs == 5 and own.recent[0].run_id == "run-5"
        assert own.favourite_flows[0].flow == "challenge"
        health = await client.health_score()
        assert 0 <= health.score <= 1 and health.parts
        with pytest.raises(ValidationError):
            await client.stats(hours=0)


async def test_what_is_registered_and_how_the_runtime_is() -> None:
    async with served() as (_, client, _):
        listed, strategies, flows = await client.models(), await client.strategies(), await client.flows()
        nano = next(entry for entry in listed.models if entry.key == "nano-m")
        assert (nano.state, nano.provider, nano.tier) == ("ready", "local", "strong")
        assert listed.tiers["strong"] in {entry.key for entry in listed.models}
        assert strategies.default in {entry.name for entry in strategies.strategies}
        assert "challenge" in {flow.name for flow in flows.flows}
        flow = await client.flow("challenge")
        assert "creator" in flow.roles and flow.spec["nodes"] and flow.mermaid
        facts = await client.system()
        assert facts.version == "1.2.3" and facts.machine["cpu_percent"] == 3.0


@pytest.mark.parametrize("method", ["stats", "user_stats", "models", "strategies", "flows", "flow", "system"])
async def test_a_document_is_read_whole(method: str) -> None:
    path = {"stats": "stats?hours=24", "user_stats": "stats/users/admin?hours=24", "flow": "flows/challenge"}
    arguments = {"user_stats": ("admin",), "flow": ("challenge",)}.get(method, ())
    async with served() as (door, client, _):
        await client.run(ASK)
        sent = (await door.client.get(f"/api/{path.get(method, method)}")).json()
        read = (await getattr(client, method)(*arguments)).model_dump(mode="json", exclude_unset=True)
        assert shape(read) == shape(sent)


async def test_every_cut_of_a_history_is_made_good() -> None:
    async with served() as (_, client, network):
        await client.run(ASK)
        for cut in range(0, 1500, 23):
            network.cuts = [cut, 0, cut + 11]
            told = [event async for event in client.events("run-1")]
            assert durable(told) == [1, 2, 3, 4, 5], cut
        assert [event async for event in client.events("run-1", after=5)] == []


async def test_a_cut_answer_makes_no_second_run() -> None:
    async with served() as (door, client, network):
        network.cuts = [0, 1]
        assert (await client.run(ASK)).answer == "85"
        network.cuts = [0, 3]
        made = await client.create_run(ASK)
        assert (await client.wait_for(made.run_id)).status == "completed"
        network.cuts = [0, 700]
        told = [event async for event in client.stream_run(ASK)]
        assert durable(told) == [1, 2, 3, 4, 5]
        assert len(await door.rows()) == 3
        with pytest.raises(KeyReused):
            await client.create_run(ASK, "order-1")
            await client.create_run(ASK.model_copy(update={"prompt": "another"}), "order-1")


async def test_a_run_that_waits_is_answered() -> None:
    async with served() as (door, client, _):
        door.runner.story = waiting_story
        result = await client.run(ASK)
        assert result.status == "waiting" and result.waiting is not None
        told = [event async for event in client.events(result.run_id, until="waiting")]
        assert told[-1].type == "run.waiting"
        paused = await client.wait_for(result.run_id)
        assert paused.waiting is not None and paused.waiting.question == "Send it?"
        with pytest.raises(Conflict, match="'i-1' of node approval: Send it\\?"):
            await client.resume_run(result.run_id, "approve", interrupt_id="i-0")
        asked = paused.waiting.interrupt_id
        await client.resume_run(
            result.run_id, "edit", text="85!", comment="louder", interrupt_id=asked, idempotency_key="mine"
        )
        rest = [event async for event in client.events(result.run_id, after=told[-1].seq)]
        assert [rest[0].type, rest[-1].type] == ["run.resumed", "run.completed"]
        whole = [event async for event in client.events(result.run_id, until="waiting")]
        assert whole[-1].type == "run.completed", "it waited once, and does no more"
        with pytest.raises(Conflict):
            await client.resume_run(result.run_id, "approve")


@pytest.mark.parametrize("rests", ["run.waiting", "run.failed"])
async def test_a_stream_with_a_used_key_goes_on_past_what_was_settled_once(rests: str) -> None:
    async with served() as (door, client, network):
        door.runner.story = waiting_story if rests == "run.waiting" else failed_story
        first = [event async for event in client.stream_run(ASK, "order-1")]
        assert first[-1].type == rests
        network.asked.clear()
        again = [event async for event in client.stream_run(ASK, "order-1")]
        assert durable(again) == durable(first), "it still rests there"
        if rests == "run.waiting":
            await client.resume_run("run-1", "approve")
        else:
            await client.restart_run("run-1")
        await client.wait_for("run-1", until="end")
        whole = [event async for event in client.stream_run(ASK, "order-1")]
        assert durable(whole) == list(range(1, len(whole) + 1)) and whole[-1].type == "run.completed"
        assert rests in [event.type for event in whole] and len(await door.rows()) == 1
        assert "GET /api/runs/run-1/events" not in network.asked, "one connection was enough"


async def test_a_failed_run_is_restarted_and_read_past_its_first_end() -> None:
    async with served() as (door, client, network):
        door.runner.story = failed_story
        assert (await client.run(ASK)).status == "failed"
        await client.restart_run("run-1", deadline_s=60)
        assert (await client.wait_for("run-1")).outcome.answer == "at last"
        for cut in range(0, 2500, 97):
            network.cuts = [cut]
            told = [event async for event in client.events("run-1")]
            types = [event.type for event in told]
            assert durable(told) == list(range(1, len(durable(told)) + 1))
            assert types.index("run.failed") < types.index("run.restarted") and types[-1] == "run.completed"
        with pytest.raises(ValidationError):
            await client.restart_run("run-1")


async def test_a_run_is_forked_from_a_checkpoint_with_another_state() -> None:
    async with served() as (door, client, network):
        door.runner.works_when_woken = False
        made = await client.create_run(ASK)
        lab = Lab("challenge", store=door.store)
        await lab.finish(made.run_id)
        first = await client.get_run(made.run_id, log=False, state=True)
        assert first.state is not None and first.checkpoints[-1].next == ("creator",)
        network.cuts = [0]
        edits = {"outputs": {"creator": "edited"}}
        forked = await client.fork_run(made.run_id, first.checkpoints[0].checkpoint_id, edits, {"seed": 7})
        assert forked.parent == made.run_id and len(await door.rows()) == 2
        second = await client.get_run(forked.run_id, log=False, state=True)
        assert second.state is not None and second.state["outputs"]["creator"] == "edited"
        assert second.request["seed"] == 7
        assert [row.run_id async for row in client.iter_runs(parent=made.run_id)] == [forked.run_id]
        with pytest.raises(NotFound):
            await client.fork_run(made.run_id, "no-such-checkpoint")
        keyed = [await client.fork_run(made.run_id, state=edits, idempotency_key="mine") for _ in range(2)]
        assert keyed[0].run_id == keyed[1].run_id and len(await door.rows()) == 3
        with pytest.raises(KeyReused):
            await client.fork_run(made.run_id, idempotency_key="mine")


async def test_a_run_is_cancelled() -> None:
    async with served() as (door, client, _):
        door.runner.works_when_woken = False
        made = await client.create_run(ASK)
        assert (await client.cancel_run(made.run_id)).status == "cancelled"
        told = [event async for event in client.events(made.run_id)]
        assert [event.type for event in told] == ["run.queued", "run.cancelled"]
        assert (await client.get_run(made.run_id)).outcome.status == "cancelled"
        door.runner.gate = asyncio.Event()
        under_way = asyncio.create_task(client.run(ASK))
        await until(lambda: "run-2" in door.runner.held)
        assert (await client.cancel_run("run-2")).status == "running"
        assert (await under_way).status == "cancelled"
        assert (await client.wait_for("run-2", until="end")).status == "cancelled"
        with pytest.raises(NotFound):
            await client.cancel_run("nobody")
