"""The HTTP engine against the scripted server: what only exists on a wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from actors.engines.openai_compatible import OpenAICompatibleEngine
from actors.engines.script import Script
from actors.engines.scripted_server import ScriptedServer
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationChunk, Message
from registries.specs import ModelSpec
from tests.odd_server import aborted, serving

CLOSED = "http://127.0.0.1:9/v1"


def spec(base_url: str, **fields: Any) -> ModelSpec:
    settings = {
        "key": "remote",
        "family": "scripted",
        "provider": "scripted",
        "engine": "openai_compatible",
        "location": "scripted",
        "context_window": 100,
        "default_strategy": "optimized",
        "base_url": base_url,
    }
    return ModelSpec.model_validate({**settings, **fields})


def call(prompt: str = "hello there", **options: Any) -> EngineCall:
    return EngineCall("r1", "scripted", (Message(role="user", content=prompt),), 50, **options)


@asynccontextmanager
async def engine_at(base_url: str, **fields: Any) -> AsyncGenerator[OpenAICompatibleEngine, None]:
    keys = {"OPENAI_API_KEY": "sk-secret"}
    engine = OpenAICompatibleEngine(spec(base_url, **fields), RuntimeConfig(home="h", provider_keys=keys))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.shutdown()


async def outcome(engine: OpenAICompatibleEngine, stream: bool, **options: Any) -> EngineResult:
    if not stream:
        return await engine.complete(call(**options))
    return [item async for item in engine.stream(call(**options))][-1]  # type: ignore[return-value]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("garbage", Fault.BAD_RESPONSE),
        ("error_in_200", Fault.BAD_RESPONSE),
        ("stream_cut", Fault.STREAM_CUT),
        ("end_without_finish", Fault.STREAM_CUT),
        ("refused", Fault.REFUSED),
    ],
)
async def test_faults_of_the_wire(kind: str, fault: Fault, stream: bool) -> None:
    answers = [{"texts": ["one two three four"], "faults": [{"kind": kind, "times": 1}]}]
    async with (
        ScriptedServer(Script.model_validate({"answers": answers})) as server,
        engine_at(server.base_url) as engine,
    ):
        with pytest.raises(ProviderError) as caught:
            await outcome(engine, stream)
        assert caught.value.fault is fault
        assert caught.value.retryable
        assert (await outcome(engine, stream)).text == "one two three four"


async def test_what_came_before_the_cut_is_given_but_no_result() -> None:
    answers = [{"texts": ["one two three four"], "faults": [{"kind": "stream_cut", "after_tokens": 2}]}]
    async with (
        ScriptedServer(Script.model_validate({"answers": answers})) as server,
        engine_at(server.base_url) as engine,
    ):
        heard: list[Any] = []
        with pytest.raises(ProviderError):
            async for item in engine.stream(call()):
                heard.append(item)
    assert "".join(item.text for item in heard) == "one two"
    assert all(isinstance(item, GenerationChunk) for item in heard)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_is_not_there(stream: bool) -> None:
    async with engine_at(CLOSED) as engine:
        with pytest.raises(ProviderError, match="cannot be reached") as caught:
            await outcome(engine, stream)
        assert caught.value.fault is Fault.REFUSED
        with pytest.raises(ProviderError):
            await engine.check_health()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_says_nothing_is_a_timeout_before_the_deadline(stream: bool) -> None:
    answers = [{"faults": [{"kind": "timeout", "times": None}]}]
    async with (
        ScriptedServer(Script.model_validate({"answers": answers})) as server,
        engine_at(server.base_url, engine_options={"first_token_timeout_s": 0.05}) as engine,
    ):
        with pytest.raises(ProviderError, match=r"sent nothing for 0\.05 s") as caught:
            await outcome(engine, stream)
    assert caught.value.fault is Fault.TIMEOUT


async def test_a_stream_that_stops_talking_is_a_timeout() -> None:
    script = Script.model_validate({"answers": [{"texts": ["one two three"], "tokens_per_s": 1}]})
    async with (
        ScriptedServer(script) as server,
        engine_at(
            server.base_url, engine_options={"chunk_timeout_s": 0.05, "first_token_timeout_s": 5}
        ) as engine,
    ):
        with pytest.raises(ProviderError) as caught:
            await outcome(engine, True)
    assert caught.value.fault is Fault.TIMEOUT


async def test_the_key_and_the_trace_travel_and_nothing_shows_the_key() -> None:
    async with (
        ScriptedServer(Script(echo=True)) as server,
        engine_at(server.base_url, api_key_env="OPENAI_API_KEY") as engine,
    ):
        await engine.complete(call(traceparent="00-abc", metadata={"user": "anna"}))
        await engine.check_health()
        assert "sk-secret" not in repr(engine.__dict__.get("spec"))
        headers = server.requests[0]["headers"]
        assert headers["Authorization"] == "Bearer sk-secret"
        assert headers["traceparent"] == "00-abc"
        assert server.requests[0]["user"] == "anna"


async def test_a_key_that_is_not_set_is_named_and_nothing_is_sent() -> None:
    async with (
        ScriptedServer(Script(echo=True)) as server,
        engine_at(server.base_url, api_key_env="OTHER_KEY") as engine,
    ):
        with pytest.raises(ProviderError, match="OTHER_KEY is not set") as caught:
            await engine.complete(call())
        assert caught.value.fault is Fault.AUTH
        assert server.requests == []


async def test_the_script_can_be_changed_while_it_runs() -> None:
    async with ScriptedServer(Script(echo=True)) as server, aiohttp.ClientSession() as session:
        root = server.base_url.removesuffix("/v1")
        async with session.post(f"{root}/script", json={"answers": [{"texts": ["changed"]}]}) as response:
            assert response.status == 200
        async with session.post(f"{root}/script", json={"no": "script"}) as response:
            assert response.status == 400
        async with engine_at(server.base_url) as engine:
            assert (await engine.complete(call())).text == "changed"
        async with session.get(f"{root}/script/state") as response:
            state = await response.json()
        assert (state["served"], state["running"], state["waiting"]) == (1, 0, 0)
        async with session.get(f"{server.base_url}/models") as response:
            assert (await response.json())["data"][0]["id"] == "scripted"
        async with session.post(f"{server.base_url}/chat/completions", data=b"no json") as response:
            assert response.status == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_is_not_followed_with_the_key(stream: bool) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("http://elsewhere.invalid/")

    async with serving(elsewhere) as base_url, engine_at(base_url) as engine:
        with pytest.raises(ProviderError) as caught:
            await outcome(engine, stream)
    assert caught.value.fault is Fault.BAD_RESPONSE


async def test_a_server_that_answers_a_stream_with_plain_json() -> None:
    async def plain(_: web.Request) -> web.Response:
        return web.json_response({"object": "error", "message": "maximum context length is 8"})

    async with serving(plain) as base_url, engine_at(base_url) as engine:
        with pytest.raises(ProviderError) as caught:
            await outcome(engine, True)
    assert caught.value.fault is Fault.CONTEXT_WINDOW


async def test_a_server_that_cannot_stream_answers_in_one_chunk() -> None:
    async def whole(_: web.Request) -> web.Response:
        choice = {"message": {"role": "assistant", "content": "all at once"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    async with serving(whole) as base_url, engine_at(base_url) as engine:
        chunk, result = [item async for item in engine.stream(call())]
    assert isinstance(result, EngineResult)
    assert chunk.text == result.text == "all at once"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_server_aborted_is_cut(stream: bool) -> None:
    async with serving(aborted) as base_url, engine_at(base_url) as engine:
        with pytest.raises(ProviderError, match="'abort'") as caught:
            await outcome(engine, stream)
    assert caught.value.fault is Fault.STREAM_CUT


async def test_many_calls_share_one_session() -> None:
    async with ScriptedServer(Script(echo=True)) as server, engine_at(server.base_url) as engine:
        results = await asyncio.gather(*(engine.complete(call(f"number {n}")) for n in range(50)))
        assert [result.text for result in results] == [f"number {n}" for n in range(50)]
        assert engine.stats().running == 0
