from __future__ import annotations

import asyncio

import pytest

from registries.contracts.errors import BudgetError, CapacityError, Fault, ProviderError
from registries.contracts.generation import GenerationResult
from tests.unit.serve_app.front_door import KEY, events_of, front_door, until


async def test_whole_answer_has_the_fields_of_a_generation_result() -> None:
    async with front_door() as door:
        answer = await door.client.post(
            "/api/inference",
            json={"prompt": "What is 48 + 37?", "model_key": "nano-m", "max_tokens": 9},
            headers={"x-request-id": "req-1"},
        )
    assert answer.status_code == 200
    body = answer.json()
    assert body["text"] == "85" and body["usage"]["completion_tokens"] == 2
    assert body["usage"]["cost"] == 0 and GenerationResult.model_validate(body).usage.cost_micro_usd == 0
    assert body["cache_hit"] is False and body["request_id"] == "req-1"
    assert answer.headers["x-request-id"] == "req-1"
    asked = door.gateway.seen[0]
    assert (asked.prompt, asked.model_key, asked.max_tokens) == ("What is 48 + 37?", "nano-m", 9)
    assert type(asked).__name__ == "GenerationRequest" and "stream" not in asked.model_dump()


async def test_streamed_answer_is_tokens_and_then_the_whole_result() -> None:
    async with front_door() as door:
        answer = await door.client.post("/api/inference", json={"prompt": "hi", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [name for name, _, _ in events] == ["token", "token", "result"]
    assert "".join(data["text"] for name, _, data in events if name == "token") == events[-1][2]["text"]


async def test_an_error_before_the_first_token_is_a_status_and_afterwards_an_event() -> None:
    async with front_door() as door:
        door.gateway.error = CapacityError("nothing fits", retry_after_s=3)
        early = await door.client.post("/api/inference", json={"prompt": "hi", "stream": True})
        door.gateway.late = True
        door.gateway.error = ProviderError("cut", Fault.STREAM_CUT, "local", "nano-m")
        late = await door.client.post("/api/inference", json={"prompt": "hi", "stream": True})
    assert early.status_code == 429 and early.headers["retry-after"] == "3"
    name, _, data = events_of(late.text)[-1]
    assert name == "error" and data["error"]["code"] == "provider_error"
    assert data["error"]["fault"] == "stream_cut" and data["error"]["request_id"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProviderError("x", Fault.TIMEOUT), 504),
        (ProviderError("x", Fault.REFUSED), 502),
        (ProviderError("x", Fault.CONTEXT_WINDOW), 400),
        (BudgetError("late", param="deadline_s"), 504),
        (BudgetError("money", param="budget_usd"), 402),
    ],
)
async def test_errors_of_the_gateway_get_their_status(error: Exception, status: int) -> None:
    async with front_door() as door:
        door.gateway.error = error
        answer = await door.client.post("/api/inference", json={"prompt": "hi"})
    assert answer.status_code == status


async def test_unexpected_errors_show_nothing_but_the_request_id() -> None:
    async with front_door() as door:
        door.gateway.error = RuntimeError("secret detail /etc/passwd")
        whole = await door.client.post("/api/inference", json={"prompt": "hi"})
        door.gateway.late = True
        streamed = await door.client.post("/api/inference", json={"prompt": "hi", "stream": True})
        door.gateway.error = None
        after = await door.client.post("/api/inference", json={"prompt": "hi"})
    assert whole.status_code == 500 and whole.json()["error"]["code"] == "internal"
    assert whole.json()["error"]["request_id"] == whole.headers["x-request-id"]
    assert whole.headers["x-frame-options"] == "DENY"
    assert "secret" not in whole.text + streamed.text
    assert events_of(streamed.text)[-1][2]["error"]["code"] == "internal"
    assert after.status_code == 200


async def test_a_client_that_leaves_cancels_the_call() -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/inference", json={"prompt": "hi"}))
        await until(lambda: len(door.gateway.seen) == 1)
        call.cancel()
        await until(lambda: door.gateway.cancelled == 1)


async def test_a_client_that_leaves_a_stream_closes_its_source() -> None:
    async with front_door() as door:
        door.gateway.gate = asyncio.Event()
        call = asyncio.create_task(door.client.post("/api/inference", json={"prompt": "hi", "stream": True}))
        await until(lambda: len(door.gateway.seen) == 1)
        call.cancel()
        await until(lambda: door.gateway.closed == 1)


async def test_a_full_house_answers_429_at_once_and_reads_go_on() -> None:
    async with front_door(max_ongoing_requests=2) as door:
        door.gateway.gate = asyncio.Event()
        calls = [
            asyncio.create_task(door.client.post("/api/inference", json={"prompt": "hi"})) for _ in range(2)
        ]
        await until(lambda: len(door.gateway.seen) == 2)
        refused = await door.client.post("/api/inference", json={"prompt": "hi"})
        health = await door.client.get("/api/health")
        door.gateway.gate.set()
        served = await asyncio.gather(*calls)
        again = await door.client.post("/api/inference", json={"prompt": "hi"})
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "capacity" and refused.json()["error"]["retryable"] is True
    assert health.status_code == 200
    assert [one.status_code for one in served] == [200, 200] and again.status_code == 200


async def test_bearer_works_as_well() -> None:
    async with front_door() as door:
        del door.client.headers["x-api-key"]
        answer = await door.client.post(
            "/api/inference", json={"prompt": "hi"}, headers={"authorization": f"bearer {KEY}"}
        )
    assert answer.status_code == 200
