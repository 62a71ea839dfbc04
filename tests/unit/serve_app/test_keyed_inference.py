"""Idempotency-Key on POST /api/inference: the same request twice is one model call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.stores.records import CallClaim, IdempotencyKey
from registries.contracts.errors import CapacityError, Fault, ProviderError, StoreError, StoreFull
from tests.unit.serve_app.front_door import FrontDoor, events_of, front_door, until
from tests.unit.serve_app.raw_client import sse

PATH = "/api/inference"
ASK = {"prompt": "What is 48 + 37?", "model_key": "nano-m"}
STREAM = {**ASK, "stream": True}
KEYED = {"Idempotency-Key": "mine-1"}
REPLAYED = "idempotency-replayed"
BROKEN = ProviderError("cut", Fault.REFUSED, "local", "nano-m")


def post(door: FrontDoor, ask: Any = ASK, **change: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(door.client.post(PATH, json={**ask, **change}, headers=KEYED))


async def asked(door: FrontDoor, count: int = 1) -> None:
    await until(lambda: len(door.gateway.seen) == count)


async def gone(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def clients(door: FrontDoor) -> int:
    return sum(live.clients for live in door.calls._live.values())


def names(answer: httpx.Response) -> list[str]:
    return [name for name, _, _ in events_of(answer.text)]


async def test_without_a_key_nothing_is_kept_and_no_store_is_asked() -> None:
    async with front_door() as door:
        for ask in (ASK, STREAM):
            assert (await door.client.post(PATH, json=ask)).status_code == 200
        assert door.faults.asked == [] and door.calls.live == 0


@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["whole", "streamed"])
async def test_fifty_duplicates_at_once_are_one_call(ask: Any) -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        calls = [post(door, ask) for _ in range(50)]
        await until(lambda: clients(door) == 50)
        door.gateway.gate.set()
        answers = await asyncio.gather(*calls)
    assert len(door.gateway.seen) == 1 and {answer.status_code for answer in answers} == {200}
    assert sum(answer.headers.get(REPLAYED) == "true" for answer in answers) == 49
    results = [events_of(a.text)[-1][2] if ask is STREAM else a.json() for a in answers]
    assert all(result == results[0] for result in results) and results[0]["text"] == "85"


async def test_the_answer_is_there_after_a_restart(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as before:
        first = await post(before)
    async with front_door(home=tmp_path) as after:
        again = await post(after)
        assert after.gateway.seen == []
    assert again.content == first.content and again.headers["content-type"] == first.headers["content-type"]
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"


async def test_a_streamed_answer_is_replayed_as_one_piece(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as before:
        first = await post(before, STREAM)
    async with front_door(home=tmp_path) as after:
        again = await post(after, STREAM)
        assert after.gateway.seen == []
    # Pieces that come at once may be told as one.
    assert set(names(first)[:-1]) == {"token"} and REPLAYED not in first.headers
    assert names(again) == ["token", "result"] and again.headers[REPLAYED] == "true"
    assert again.headers["content-type"].startswith("text/event-stream")
    assert events_of(again.text)[0][2] == {"text": "85"}
    assert events_of(again.text)[-1] == events_of(first.text)[-1]


@pytest.mark.parametrize(
    "change", [{"prompt": "another"}, {"max_tokens": 3}, {"stream": True}, {"deadline_s": 5}]
)
@pytest.mark.parametrize("is_over", [True, False])
async def test_the_same_key_with_another_body_is_422(change: dict[str, Any], is_over: bool) -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        first = post(door)
        await asked(door)
        if is_over:
            door.gateway.gate.set()
            await first
        other = await post(door, **change)
        door.gateway.gate.set()
        assert (await first).status_code == 200 and len(door.gateway.seen) == 1
    error = other.json()["error"]
    assert (other.status_code, error["code"]) == (422, "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"


async def test_a_key_is_a_run_s_or_a_call_s() -> None:
    run = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
    async with front_door() as door:
        await door.client.post("/api/runs", json=run, headers=KEYED)
        assert (await post(door)).status_code == 422 and door.gateway.seen == []
        other = {"Idempotency-Key": "mine-2"}
        assert (await door.client.post(PATH, json=ASK, headers=other)).status_code == 200
        for path in ("/api/runs", "/api/orchestrate", "/api/runs/run-1/restart"):
            answer = await door.client.post(path, json=run if "restart" not in path else {}, headers=other)
            assert answer.status_code == 422, path
        assert len(await door.rows()) == 1


@pytest.mark.parametrize("given", ["", "x" * 256])
async def test_a_key_that_is_none_is_refused(given: str) -> None:
    async with front_door() as door:
        answer = await door.client.post(PATH, json=ASK, headers={"Idempotency-Key": given})
        assert answer.status_code == 400 and door.gateway.seen == []


@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["whole", "streamed"])
async def test_a_failed_call_is_not_kept(ask: Any) -> None:
    async with front_door() as door:
        door.gateway.error = BROKEN
        failed = await post(door, ask)
        door.gateway.error = RuntimeError("secret")
        broken = await post(door, ask)
        door.gateway.error = None
        again = await post(door, ask)
        other_body = await post(door, ask, prompt="another")
    assert (failed.status_code, broken.status_code, again.status_code) == (502, 500, 200)
    assert "secret" not in broken.text and other_body.status_code == 422
    assert len(door.gateway.seen) == 3 and REPLAYED not in again.headers


@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["whole", "streamed"])
async def test_when_the_first_fails_one_that_waits_calls_for_the_others(ask: Any) -> None:
    async with front_door() as door:
        door.gateway.gate, door.gateway.error, door.gateway.late = asyncio.Event(), BROKEN, True
        door.gateway.chunks = ()
        calls = [post(door, ask) for _ in range(9)]
        await until(lambda: clients(door) == 9)
        door.gateway.gate.set()
        first = await calls[0]
        door.gateway.error, door.gateway.chunks = None, ("8", "5")
        answers = await asyncio.gather(*calls[1:])
    assert "provider_error" in first.text
    assert {answer.status_code for answer in answers} == {200}
    assert len(door.gateway.seen) >= 2 and all('"85"' in answer.text for answer in answers)
    assert sum(REPLAYED in answer.headers for answer in answers) == 7


async def test_a_stream_that_was_told_in_part_ends_for_all_its_readers() -> None:
    async with front_door() as door:
        door.gateway.gate, door.gateway.error, door.gateway.late = asyncio.Event(), BROKEN, True
        async with (
            sse(door.app, PATH, body=STREAM, idempotency_key="mine-1") as one,
            sse(door.app, PATH, body=STREAM, idempotency_key="mine-1") as two,
        ):
            await until(lambda: bool(one.events and two.events))
            door.gateway.gate.set()
            await one.over()
            await two.over()
        assert len(door.gateway.seen) == 1
        assert one.events[-1][0] == two.events[-1][0] == "error"


async def test_a_client_that_leaves_comes_again_and_gets_the_answer() -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        first = post(door)
        await asked(door)
        await gone(first)
        again = post(door)
        await until(lambda: clients(door) == 1)
        door.gateway.gate.set()
        answer = await again
        late = await post(door)
    assert answer.json() == late.json() and answer.headers[REPLAYED] == late.headers[REPLAYED] == "true"
    assert len(door.gateway.seen) == 1 and door.gateway.cancelled == 0


async def test_a_stream_goes_on_when_its_client_leaves() -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        async with sse(door.app, PATH, body=STREAM, idempotency_key="mine-1") as call:
            await until(lambda: len(call.events) >= 1)
        await until(lambda: clients(door) == 0)
        again = post(door, STREAM)
        await until(lambda: clients(door) == 1)
        assert door.gateway.closed == 0
        door.gateway.gate.set()
        answer = await again
        assert door.calls.live == 0
    assert answer.headers[REPLAYED] == "true" and names(answer)[-1] == "result"
    assert "".join(data["text"] for name, _, data in events_of(answer.text) if name == "token") == "85"
    assert len(door.gateway.seen) == 1


async def test_a_call_that_nobody_waits_for_fails_quietly() -> None:
    async with front_door() as door:
        door.gateway.gate, door.gateway.error = asyncio.Event(), BROKEN
        first = post(door)
        await asked(door)
        await gone(first)
        door.gateway.gate.set()
        await until(lambda: door.calls.live == 0)
        door.gateway.error = None
        assert (await post(door)).status_code == 200


@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["whole", "streamed"])
async def test_a_call_of_another_process_is_waited_for(ask: Any, tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.gateway.gate = asyncio.Event()
        first = post(one, ask)
        await asked(one)
        others = [post(other, ask) for _ in range(5)]
        await until(lambda: other.faults.asked.count("look_at_call") >= 2)
        one.gateway.gate.set()
        answers = await asyncio.gather(first, *others)
        assert other.gateway.seen == [] and other.faults.asked.count("claim_call") == 1
    results = [events_of(a.text)[-1][2] if ask is STREAM else a.json() for a in answers]
    assert all(result == results[0] for result in results)
    assert [REPLAYED in answer.headers for answer in answers] == [False] + 5 * [True]


async def test_a_call_that_fails_in_another_process_is_taken_over(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.gateway.gate, one.gateway.error = asyncio.Event(), BROKEN
        first = post(one)
        await asked(one)
        second = post(other)
        await until(lambda: "look_at_call" in other.faults.asked)
        one.gateway.gate.set()
        answer = await second
    assert (await first).status_code == 502 and answer.status_code == 200
    assert len(other.gateway.seen) == 1 and REPLAYED not in answer.headers


async def test_a_dead_process_s_call_is_taken_over_when_its_lease_ends(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as before:
        await post(before)
        digest = await digest_of(before)
    async with front_door(home=tmp_path / "other") as door:
        dead = CallClaim("default", "mine-1", "dead", "token", 0.3)
        await door.store.claim_call(IdempotencyKey("mine-1", digest), dead)
        answer = await post(door)
    assert answer.status_code == 200 and len(door.gateway.seen) == 1 and REPLAYED not in answer.headers


async def digest_of(door: FrontDoor) -> str:
    """Of the request that came with mine-1."""
    work = lambda tx: tx.execute("SELECT digest FROM idempotency_keys").fetchone()[0]  # noqa: E731
    digest: str = await door.store._database.read(work)
    return digest


async def test_whoever_waits_keeps_to_its_own_deadline(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.gateway.gate = asyncio.Event()
        first = post(one, deadline_s=0.2)
        await asked(one)
        late = [await post(one, deadline_s=0.2), await post(other, deadline_s=0.2)]
        assert other.gateway.seen == [] and other.calls.live == 0
        one.gateway.gate.set()
        assert (await first).status_code == 200
        assert 0 < (one.gateway.seen[0].deadline_s or 0) <= 0.2
    for answer in late:
        assert answer.status_code == 504 and answer.json()["error"]["param"] == "deadline_s"


async def test_a_call_that_ignores_its_deadline_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.keyed_calls.OVERRUN_S", 0.05)
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        answer = await post(door, deadline_s=0.05)
        assert door.gateway.cancelled == 1 and door.calls.live == 0
    assert answer.status_code == 504 and answer.json()["error"]["param"] == "deadline_s"


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [("down", StoreError("away"), 503), ("full", StoreFull("no space"), 507)],
)
async def test_without_a_database_the_model_is_not_asked(fault: str, error: Exception, status: int) -> None:
    async with front_door() as door:
        setattr(door.faults, fault, error)
        answers = await asyncio.gather(*(post(door, ask) for ask in (ASK, ASK, STREAM)))
        assert door.gateway.seen == []
        setattr(door.faults, fault, None)
        assert (await post(door)).status_code == 200
    for answer in answers:
        assert answer.status_code == status and int(answer.headers["retry-after"]) >= 1


async def test_an_answer_that_cannot_be_kept_is_answered_all_the_same() -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        first = post(door)
        await asked(door)
        door.faults.down = StoreError("away")
        door.gateway.gate.set()
        assert (await first).json()["text"] == "85"
        door.faults.down = None
        again = await post(door)
    assert again.status_code == 200 and REPLAYED not in again.headers and len(door.gateway.seen) == 2


async def test_a_process_that_was_stopped_past_its_lease_gives_the_kept_answer(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.gateway.gate, other.gateway.chunks = asyncio.Event(), ("eighty-five",)
        first = post(one)
        await asked(one)
        # Ends its lease, as time would.
        await one.store.release_orphans("another runtime")
        second = await post(other)
        one.gateway.gate.set()
        answer = await first
    assert second.json()["text"] == answer.json()["text"] == "eighty-five"
    assert len(one.gateway.seen) == len(other.gateway.seen) == 1


async def test_a_stop_cancels_its_calls_and_gives_their_keys_back(tmp_path: Path) -> None:
    async with front_door(home=tmp_path) as one, front_door(home=tmp_path) as other:
        one.gateway.gate = asyncio.Event()
        calls = [post(one), post(one)]
        await asked(one)
        await until(lambda: clients(one) == 2)
        await one.calls.aclose()
        for call in calls:
            assert (await call).status_code == 429
        assert one.gateway.cancelled == 1
        assert (await post(other)).status_code == 200 and len(other.gateway.seen) == 1


async def test_calls_that_were_left_are_bounded() -> None:
    async with front_door(max_ongoing_requests=2) as door:
        door.gateway.gate = asyncio.Event()
        for number in range(2):
            headers = {"Idempotency-Key": f"left-{number}"}
            call = asyncio.create_task(door.client.post(PATH, json=ASK, headers=headers))
            await asked(door, number + 1)
            await gone(call)
        refused = await post(door)
        assert refused.status_code == 429 and "rejected calls_full" in door.metrics.counted
        door.gateway.gate.set()
        await until(lambda: door.calls.live == 0)
        assert (await post(door)).status_code == 200


async def test_a_capacity_error_of_the_model_is_answered_as_without_a_key() -> None:
    async with front_door() as door:
        door.gateway.error = CapacityError("nothing fits", retry_after_s=3)
        answer = await post(door)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "3"
