"""ModelReplica on a real Ray: answers, streams, cancellation, full queues, scaling, failed loads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import serve
from ray.serve.exceptions import BackPressureError, RequestCancelledError

from actors.model_replica import DEPLOYMENT, build_model_app, model_app_name
from actors.readiness import cause_of
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationChunk, Message
from registries.specs import ModelSpec
from tests.conformance.tiny_model import make_tiny_model
from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
WORDS = " ".join(f"word{number}" for number in range(300))
SCRIPT = {
    "slots": 4,
    "answers": [
        {"pattern": "^slow", "texts": [WORDS], "tokens_per_s": 30},
        {"pattern": "^quick", "texts": [WORDS], "tokens_per_s": 400},
        {"pattern": "^second", "texts": ["one moment"], "latency_s": 1.0},
        {"pattern": "^fail", "faults": [{"kind": "rate_limited", "times": None, "retry_after_s": 9}]},
    ],
    "echo": True,
}


@pytest.fixture(scope="module", autouse=True)
def config(driver: RunningCluster) -> RuntimeConfig:
    """The shared cluster's configuration; this process is attached to it."""
    return driver.config


def spec(key: str, engine: str = "scripted", **fields: Any) -> ModelSpec:
    settings: dict[str, Any] = {
        "family": "scripted",
        "provider": "scripted",
        "location": "scripted",
        "context_window": 1000,
        "default_strategy": "optimized",
        "engine_options": {"script": SCRIPT} if engine == "scripted" else {},
        **fields,
    }
    return ModelSpec.model_validate({"key": key, "engine": engine, **settings})


def call(prompt: str, request_id: str = "r", **options: Any) -> EngineCall:
    settings = {"max_tokens": 64, "deadline_s": 60.0, **options}
    return EngineCall(request_id, "scripted", (Message(role="user", content=prompt),), **settings)


@asynccontextmanager
async def deployed(model: ModelSpec, config: RuntimeConfig) -> AsyncGenerator[Any, None]:
    name = model_app_name(model.key)
    try:
        yield await asyncio.to_thread(
            serve.run, build_model_app(model, config), name=name, route_prefix=None, blocking=False
        )
    finally:
        await asyncio.to_thread(serve.delete, name)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    end = time.monotonic() + paced(within_s)
    while not await condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def running_is(handle: Any, count: int, within_s: float = 2.0) -> bool:
    async def reached() -> bool:
        return (await handle.status.remote())["running"] == count

    return await until(reached, within_s)


async def test_complete_stream_status_and_cancellation(config: RuntimeConfig) -> None:
    async with deployed(spec("calls/one"), config) as handle:
        result = await handle.complete.remote(call("say this"))
        assert (result.text, result.completion_tokens) == ("say this", 2)

        items = [
            items async for items in handle.options(stream=True).stream.remote(call("quick", max_tokens=60))
        ]
        flat = [item for group in items for item in group]
        assert isinstance(flat[-1], EngineResult)
        assert "".join(item.text for item in flat if isinstance(item, GenerationChunk)) == flat[-1].text
        assert len(items) < 30, "tokens come coalesced"

        status = await handle.status.remote()
        assert status["model"] == "calls/one"
        assert status["provider"] == "scripted"

        with pytest.raises(ProviderError) as caught:
            await handle.complete.remote(call("fail"))
        assert caught.value.fault is Fault.RATE_LIMITED
        assert caught.value.retry_after_s == 9

        await cancelling_frees_the_slot(handle)


async def cancelling_frees_the_slot(handle: Any) -> None:
    whole = handle.complete.remote(call("slow", max_tokens=300))
    assert await running_is(handle, 1)
    whole.cancel()
    with pytest.raises((RequestCancelledError, asyncio.CancelledError)):
        await whole
    assert await running_is(handle, 0)

    streamed = handle.options(stream=True).stream.remote(call("slow", max_tokens=300))
    async for _ in streamed:
        break
    streamed.cancel()
    assert await running_is(handle, 0)

    aborted = asyncio.ensure_future(_outcome(handle.complete.remote(call("slow", "named", max_tokens=300))))
    assert await running_is(handle, 1)
    await handle.abort.remote("named")
    assert await running_is(handle, 0)
    assert "CancelledRun" in type(await aborted).__name__


async def _outcome(response: Any) -> Any:
    try:
        return await response
    except Exception as error:  # noqa: BLE001 - the error is the outcome
        return error


async def test_full_queue_is_refused_at_once_with_retry_after(config: RuntimeConfig) -> None:
    scaling = {"max_ongoing_requests": 2, "max_queued_requests": 2}
    async with deployed(spec("full", scaling=scaling), config) as handle:
        # The handle's first call makes its router, which others would wait for together.
        await handle.complete.remote(call("say this"))
        taken: list[asyncio.Future[Any]] = []
        for number in range(20):
            started = time.monotonic()
            asked = asyncio.ensure_future(_outcome(handle.complete.remote(call("second", f"r{number}"))))
            done, _ = await asyncio.wait({asked}, timeout=min(0.2, paced(0.1)))
            if done and isinstance(asked.result(), BackPressureError):
                break
            taken.append(asked)
        refusal = asked.result()
        assert time.monotonic() - started < paced(0.1)
        assert refusal.retry_after_s == 1.0
        outcomes = await asyncio.gather(*taken)
        assert len(outcomes) >= 4
        assert all(isinstance(outcome, EngineResult) for outcome in outcomes), "who was let in is served"


async def test_scales_from_one_to_two_and_back(config: RuntimeConfig) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 2.0,
        "max_ongoing_requests": 16,
    }
    async with deployed(spec("scales", scaling=scaling), config) as handle:

        async def replicas_are(count: int) -> bool:
            status = (await asyncio.to_thread(serve.status)).applications[model_app_name("scales")]
            states = status.deployments[DEPLOYMENT].replica_states
            return states.get("RUNNING", 0) == count and sum(states.values()) == count

        async def work(stop: asyncio.Event) -> int:
            done = 0
            while not stop.is_set():
                await handle.complete.remote(call("second"))
                done += 1
            return done

        assert await until(lambda: replicas_are(1), 10)
        stop = asyncio.Event()
        workers = [asyncio.create_task(work(stop)) for _ in range(12)]
        assert await until(lambda: replicas_are(2), 30)
        stop.set()
        assert min(await asyncio.gather(*workers)) >= 1, "nobody was lost while scaling"
        assert await until(lambda: replicas_are(1), 40)


async def test_a_missing_folder_fails_by_name_and_only_that_application(config: RuntimeConfig) -> None:
    missing = spec("missing", "transformers", location="/nowhere/at/all", provider="local")
    name = model_app_name("missing")
    try:
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(serve.run, build_model_app(missing, config), name=name, route_prefix=None)
        status = (await asyncio.to_thread(serve.status)).applications[name]
        reason = cause_of(status.deployments[DEPLOYMENT].message)
        assert "missing" in reason
        assert "/nowhere/at/all" in reason
        assert "Traceback" not in reason
    finally:
        await asyncio.to_thread(serve.delete, name)


async def test_vllm_replica_answers_frees_slots_and_leaves_no_process(
    config: RuntimeConfig, tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    weights = await asyncio.to_thread(make_tiny_model, tmp_path / "tiny")
    model = spec("tiny", "vllm", location=str(weights), provider="local", context_window=256,
                 engine_options={"kv_cache_mb": 32})  # fmt: skip
    async with deployed(model, config) as handle:
        whole = await handle.complete.remote(call("hello", max_tokens=40))
        groups = [
            group async for group in handle.options(stream=True).stream.remote(call("hello", max_tokens=40))
        ]
        assert groups[-1][-1].text == whole.text
        for _ in range(3):
            response = handle.options(stream=True).stream.remote(call("hello", max_tokens=240))
            async for _ in response:
                break
            response.cancel()
        assert await running_is(handle, 0)
        engines = engine_cores((await handle.status.remote())["pid"])
        assert engines
    assert not any(process.is_running() for process in engines)


def engine_cores(replica_pid: int) -> list[psutil.Process]:
    """vLLM's processes below a replica."""
    below = psutil.Process(replica_pid).children(recursive=True)
    return [process for process in below if "EngineCore" in " ".join(process.cmdline())]
