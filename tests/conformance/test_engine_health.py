"""What Serve kills a replica for: never for being busy, and a dead engine is a lost replica."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from actors.engines.process_tree import children_of
from actors.engines.table import make_engine
from actors.gateway.breaker import OutcomeKind
from actors.gateway.faults import outcome_kind
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import REPLICA_LOST, Engine, EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import Message
from tests.conformance.engine_cases import LONG_WINDOW, model_spec
from tests.conformance.tiny_model import make_tiny_model
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(180)]
HAS_VLLM = importlib.util.find_spec("vllm") is not None
LOCAL = ["transformers", *(["vllm"] if HAS_VLLM else [])]


@asynccontextmanager
async def narrow_engine(name: str, folder: Path) -> AsyncGenerator[Engine, None]:
    """An engine that answers one call at a time."""
    weights = await asyncio.to_thread(
        make_tiny_model, folder / "tiny", context_window=LONG_WINDOW, endless=True
    )
    options = {"max_num_seqs": 1, **({"kv_cache_mb": 32} if name == "vllm" else {})}
    spec = model_spec(
        name, location=str(weights), provider="local", engine_options=options, context_window=LONG_WINDOW
    )
    engine = make_engine(spec, RuntimeConfig(home=str(folder / "home"), local_engine=name))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.shutdown()


def long_call() -> EngineCall:
    return EngineCall("long", "tiny", (Message(role="user", content="slow"),), 500, deadline_s=120.0)


@pytest.mark.parametrize("name", LOCAL)
async def test_a_full_engine_that_makes_tokens_is_healthy_at_once(name: str, tmp_path: Path) -> None:
    async with narrow_engine(name, tmp_path) as engine:
        await engine.check_health()
        items = engine.stream(long_call())
        await anext(aiter(items))
        check = asyncio.create_task(engine.check_health())
        await asyncio.sleep(0)
        assert check.done(), "a probe would stand in line until the answer is whole"
        await check
        assert engine.stats().running == 1
        assert isinstance([item async for item in items][-1], EngineResult)
        for _ in range(3):
            await engine.check_health()


@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
async def test_an_engine_that_died_inside_its_replica_is_a_lost_replica(tmp_path: Path) -> None:
    before = children_of(psutil.Process().pid)
    async with narrow_engine("vllm", tmp_path) as engine:
        asking = asyncio.create_task(engine.complete(long_call()))
        await until(lambda: engine.stats().running == 1, 10)
        for process in children_of(psutil.Process().pid) - before:
            process.kill()
        with pytest.raises(ProviderError) as caught:
            await asking
        assert caught.value.fault is Fault.REFUSED
        assert caught.value.context[REPLICA_LOST]
        assert outcome_kind(caught.value) is OutcomeKind.IGNORED, "Serve replaces it: no minute of rest"
        with pytest.raises(ProviderError):
            await engine.check_health()
