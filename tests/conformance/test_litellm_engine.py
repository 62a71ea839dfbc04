"""What is litellm's own: prices, its callback, keys by provider, and faults that it would hide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from actors.engines.litellm_endpoints import NO_KEY, litellm_endpoints
from actors.engines.litellm_engine import CallFacts, LitellmEngine
from actors.engines.script import Script
from actors.engines.scripted_server import ScriptedServer
from actors.engines.table import make_engine
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ParleyError, ProviderError
from registries.contracts.generation import Message
from registries.specs import ModelSpec
from tests.odd_server import aborted, serving

# One loop and one engine, as in the adapter: litellm's logging belongs to the loop that first used it.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.heavy, pytest.mark.timeout(120)]


def call(prompt: str = "two words", model: str = "openai/gpt-4o-mini", **options: Any) -> EngineCall:
    messages = (Message(role="user", content=prompt),)
    return EngineCall(
        **{"request_id": "r1", "model_key": "m", "deadline_s": 20.0, **options},
        model=model,
        messages=messages,
        max_tokens=20,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncGenerator[tuple[LitellmEngine, ScriptedServer, list[CallFacts]], None]:
    facts: list[CallFacts] = []
    async with ScriptedServer(Script(echo=True)) as server:
        engine = LitellmEngine({"m": (server.base_url, "sk-scripted")}, facts.append)
        await engine.start()
        yield engine, server, facts
        await engine.shutdown()


@pytest.fixture
def engine(shared: tuple[LitellmEngine, ScriptedServer, list[CallFacts]]) -> LitellmEngine:
    return shared[0]


@pytest.fixture
def server(shared: tuple[LitellmEngine, ScriptedServer, list[CallFacts]]) -> ScriptedServer:
    """Echoes again, whatever the test before had it play."""
    shared[1].cast.load(Script(echo=True))
    shared[1].requests.clear()
    return shared[1]


@pytest.fixture
def facts(shared: tuple[LitellmEngine, ScriptedServer, list[CallFacts]]) -> list[CallFacts]:
    shared[2].clear()
    return shared[2]


async def answered(engine: LitellmEngine, stream: bool, **options: Any) -> EngineResult:
    if not stream:
        return await engine.complete(call(**options))
    return [item async for item in engine.stream(call(**options))][-1]  # type: ignore[return-value]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_a_known_model_has_a_cost(
    engine: LitellmEngine, server: ScriptedServer, stream: bool
) -> None:
    long = "word " * 4000
    known = await answered(engine, stream, prompt=long)
    assert known.cost_micro_usd is not None
    assert known.cost_micro_usd > 0
    assert (await answered(engine, stream, model="openai/nobody-knows-me")).cost_micro_usd is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("end_without_finish", Fault.STREAM_CUT),
        ("stream_cut", Fault.STREAM_CUT),
        ("garbage", Fault.BAD_RESPONSE),
        ("error_in_200", Fault.BAD_RESPONSE),
    ],
)
async def test_no_broken_answer_passes_for_one(
    engine: LitellmEngine, server: ScriptedServer, kind: str, fault: Fault, stream: bool
) -> None:
    answers = [{"texts": ["one two three four"], "faults": [{"kind": kind, "times": None}]}]
    server.cast.load(Script.model_validate({"answers": answers}))
    with pytest.raises(ProviderError) as caught:
        await answered(engine, stream)
    assert caught.value.fault is fault
    assert server.cast.player.calls == 1, "nothing was retried"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_server_aborted_is_cut(engine: LitellmEngine, stream: bool) -> None:
    async with serving(aborted) as base_url:
        own = LitellmEngine({"m": (base_url, "sk-scripted")})
        await own.start()
        with pytest.raises(ProviderError, match=r"abort|last event") as caught:
            await answered(own, stream)
    assert caught.value.fault is Fault.STREAM_CUT


async def test_the_callback_tells_of_every_call(
    engine: LitellmEngine, server: ScriptedServer, facts: list[CallFacts]
) -> None:
    tagged = {"user": "anna", "tags": "a,b", "run": "7"}
    await engine.complete(call(metadata=tagged, request_id="tagged"))
    await answered(engine, True)
    server.cast.load(Script.model_validate({"answers": [{"faults": [{"kind": "auth", "times": None}]}]}))
    with pytest.raises(ParleyError):
        await engine.complete(call())
    end = time.monotonic() + 10
    while {fact["status"] for fact in facts} < {"ok", "error"} and time.monotonic() < end:  # noqa: ASYNC110 - a callback of litellm's worker
        await asyncio.sleep(0.02)
    assert {fact["status"] for fact in facts} == {"ok", "error"}
    first = next(fact for fact in facts if fact["user"] == "anna")
    assert first["tags"] == ["a", "b"]
    assert first["request_id"] == "tagged"
    assert first["completion_tokens"] == 2
    assert first["cost_usd"] > 0


async def test_the_endpoint_s_key_is_sent_and_no_other(engine: LitellmEngine, server: ScriptedServer) -> None:
    await engine.complete(call())
    assert server.requests[0]["headers"]["Authorization"] == "Bearer sk-scripted"


def entry(key: str, base_url: str, **fields: Any) -> ModelSpec:
    settings = {"family": "f", "provider": "p", "engine": "litellm", "location": "openai/gpt-4o-mini"}
    more = {"context_window": 1000, "default_strategy": "optimized", "base_url": base_url, **fields}
    return ModelSpec.model_validate({"key": key, **settings, **more})


async def test_entries_of_one_location_keep_their_own_urls_and_keys() -> None:
    keys = {"OPENAI_API_KEY": "sk-public", "A_API_KEY": "sk-a", "B_API_KEY": "sk-b"}
    config = RuntimeConfig(home="unused", provider_keys=keys)
    async with ScriptedServer(Script(echo=True)) as one, ScriptedServer(Script(echo=True)) as two:
        specs = [
            entry("a", one.base_url, api_key_env="A_API_KEY"),
            entry("b", two.base_url, api_key_env="B_API_KEY"),
            entry("keyless", two.base_url),
        ]
        engine = LitellmEngine(litellm_endpoints(specs, config))
        await engine.start()
        for key in ("a", "b", "keyless"):
            await engine.complete(call(model_key=key))
        sent = [request["headers"]["Authorization"] for request in (*one.requests, *two.requests)]
        assert sent == ["Bearer sk-a", "Bearer sk-b", f"Bearer {NO_KEY}"]


async def test_an_entry_that_is_not_known_is_asked_nowhere(
    engine: LitellmEngine, server: ScriptedServer
) -> None:
    with pytest.raises(ProviderError, match="no entry here") as caught:
        await engine.complete(call(model_key="newer than this adapter"))
    assert caught.value.fault is Fault.NOT_SERVED and not server.requests


async def test_without_a_runtime_a_private_entry_is_asked_at_its_own_url_with_its_own_key() -> None:
    config = RuntimeConfig(home="unused", provider_keys={"OPENAI_API_KEY": "sk-public", "A_API_KEY": "sk-a"})
    async with ScriptedServer(Script(echo=True)) as server:
        spec = entry("a", server.base_url, api_key_env="A_API_KEY")
        engine = make_engine(spec, config)
        await engine.start()
        await engine.complete(call(model_key="a"))
        assert [r["headers"]["Authorization"] for r in server.requests] == ["Bearer sk-a"]


async def test_before_the_start_nothing_is_asked() -> None:
    engine = LitellmEngine({})
    with pytest.raises(ProviderError, match="not started"):
        await engine.complete(call())
    with pytest.raises(ProviderError, match="not loaded"):
        await engine.check_health()
    await engine.shutdown()
