"""RemoteAdapter on a real Ray: litellm against the scripted server, and its callbacks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from ray import serve

from actors.engines.script import Script
from actors.engines.scripted_server import ScriptedServer
from actors.remote_adapter import build_remote_adapter_app
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationChunk, Message
from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]
APP = "remote-adapter-under-test"
SCRIPT = {
    "echo": True,
    "answers": [
        {"pattern": "^limited", "faults": [{"kind": "rate_limited", "times": None, "retry_after_s": 6}]}
    ],
}


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer, None]:
    async with ScriptedServer(Script.model_validate(SCRIPT)) as running:
        yield running


def remote_model(base_url: str) -> dict[str, Any]:
    return {
        "key": "through-litellm",
        "family": "scripted",
        "provider": "scripted",
        "engine": "litellm",
        "location": "openai/gpt-4o-mini",
        "base_url": base_url,
        "api_key_env": "SCRIPTED_API_KEY",
        "context_window": 1000,
        "default_strategy": "optimized",
    }


def call(prompt: str) -> EngineCall:
    messages = (Message(role="user", content=prompt),)
    metadata = {"user": "anna", "tags": "a,b"}
    return EngineCall(
        "call-1",
        "openai/gpt-4o-mini",
        messages,
        50,
        deadline_s=30,
        metadata=metadata,
        model_key="through-litellm",
    )


async def test_litellm_answers_streams_maps_errors_and_reports(
    driver: RunningCluster, server: ScriptedServer
) -> None:
    config = driver.config.model_copy(
        update={
            "extra_models": (*driver.config.extra_models, remote_model(server.base_url)),
            "provider_keys": {"SCRIPTED_API_KEY": "sk-scripted"},
        }
    )
    application = build_remote_adapter_app(config)
    try:
        handle: Any = await asyncio.to_thread(serve.run, application, name=APP, route_prefix=None)
        whole = await handle.complete.remote(call("two words"))
        assert (whole.text, whole.completion_tokens) == ("two words", 2)
        assert whole.cost_micro_usd is not None, "gpt-4o-mini has a price in litellm's map"

        groups = [group async for group in handle.options(stream=True).stream.remote(call("two words"))]
        items = [item for group in groups for item in group]
        assert isinstance(items[-1], EngineResult)
        assert "".join(item.text for item in items if isinstance(item, GenerationChunk)) == "two words"

        with pytest.raises(ProviderError) as caught:
            await handle.complete.remote(call("limited"))
        assert caught.value.fault is Fault.RATE_LIMITED
        assert caught.value.retry_after_s == 6

        assert server.requests[0]["headers"]["Authorization"] == "Bearer sk-scripted"
        assert server.requests[0]["user"] == "anna"
        facts = await provider_calls(driver, 3)
        assert {fact["status"] for fact in facts} == {"ok", "error"}
        assert facts[0]["user"] == "anna"
        assert facts[0]["tags"] == ["a", "b"]
        assert "sk-scripted" not in driver.logs("remote_adapter")
    finally:
        await asyncio.to_thread(serve.delete, APP)


async def provider_calls(driver: RunningCluster, count: int) -> list[dict[str, Any]]:
    """The events that litellm's callback logged; they come a moment after the answers."""
    end = time.monotonic() + paced(15)
    while True:
        lines = [json.loads(line) for line in driver.logs("remote_adapter").splitlines()]
        facts = [line for line in lines if line.get("event") == "litellm_call"]
        if len(facts) >= count or time.monotonic() > end:
            return facts
        await asyncio.sleep(0.05)
