"""How each engine of the table is brought up for its conformance suite: one line each in ``_CASES``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.engines.script import Script
from actors.engines.scripted_server import ScriptedServer
from actors.engines.table import make_engine
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Engine, EngineCall
from registries.contracts.generation import Message
from registries.specs import ModelSpec
from tests.conformance.tiny_model import CONTEXT_WINDOW, make_tiny_model

LONG_WINDOW = 4096
"""Room for an answer of seconds: a test's process that stands still for less finds its call under way."""
WORDS = " ".join(f"word{number}" for number in range(400))
SCRIPT = Script.model_validate(
    {
        "context_window": 2000,
        "answers": [
            {"pattern": "^slow", "texts": [WORDS], "tokens_per_s": 40},
            {"pattern": "^seeded", "texts": ["red apple", "green pear", "blue plum"]},
            {
                "pattern": "^fail rate",
                "faults": [{"kind": "rate_limited", "times": None, "retry_after_s": 7}],
            },
            {"pattern": "^fail auth", "faults": [{"kind": "auth", "times": None}]},
            {"pattern": "^fail bad", "faults": [{"kind": "bad_response", "times": None}]},
            {"pattern": "^fail policy", "faults": [{"kind": "content_policy", "times": None}]},
            {"pattern": "^fail missing", "faults": [{"kind": "not_served", "times": None}]},
            {"pattern": "^fail refused", "faults": [{"kind": "refused", "times": None}]},
            {"pattern": "^fail cut", "texts": [WORDS], "faults": [{"kind": "stream_cut", "times": None}]},
            {"pattern": "^fail hang", "faults": [{"kind": "timeout", "times": None}]},
            {"pattern": "^fail twice", "texts": ["good"], "faults": [{"kind": "bad_response", "times": 2}]},
        ],
        "echo": True,
    }
)


@dataclass(slots=True)
class EngineCase:
    """A started engine and what the suite must know of it.

    ``slow`` is a prompt whose answer takes seconds; ``busy`` counts the calls that hold a slot where the
    tokens are made (in a server: the server's count); ``faults`` says whether the script can make it fail.
    """

    engine: Engine
    model: str
    slow: str
    busy: Callable[[], int]
    faults: bool
    ends_by_itself: bool

    def call(self, prompt: str, request_id: str = "r1", **options: object) -> EngineCall:
        """A call with the case's model; greedy, 16 tokens, 30 s."""
        settings: dict[str, object] = {"max_tokens": 16, "deadline_s": 30.0, "model_key": "case", **options}
        messages = (Message(role="user", content=prompt),)
        return EngineCall(request_id=request_id, model=self.model, messages=messages, **settings)  # type: ignore[arg-type]


def model_spec(engine: str, **fields: object) -> ModelSpec:
    """A registry entry with the fields that every one needs."""
    settings: dict[str, object] = {
        "key": f"case-{engine}",
        "family": "scripted",
        "provider": "scripted",
        "location": "scripted",
        "context_window": CONTEXT_WINDOW,
        "default_strategy": "optimized",
        **fields,
    }
    return ModelSpec.model_validate({"engine": engine, **settings})


@asynccontextmanager
async def open_case(name: str, folder: Path) -> AsyncGenerator[EngineCase, None]:
    """Bring up the engine of that name, and end it."""
    config = RuntimeConfig(home=str(folder / "home"))
    async with AsyncExitStack() as stack:
        case = await _CASES[name](stack, config, folder)
        await case.engine.start()
        stack.push_async_callback(case.engine.shutdown)
        yield case


async def _scripted(_: AsyncExitStack, config: RuntimeConfig, __: Path) -> EngineCase:
    spec = model_spec("scripted", engine_options={"script": SCRIPT.model_dump()})
    engine = make_engine(spec, config)
    return EngineCase(engine, "scripted", "slow", lambda: engine.stats().running, True, True)


async def _over_http(stack: AsyncExitStack, config: RuntimeConfig, _: Path) -> EngineCase:
    server = await stack.enter_async_context(ScriptedServer(SCRIPT))
    engine = make_engine(model_spec("scripted", base_url=server.base_url), config)
    return EngineCase(engine, "scripted", "slow", lambda: server.cast.running, True, True)


async def _litellm(stack: AsyncExitStack, config: RuntimeConfig, _: Path) -> EngineCase:
    from actors.engines.litellm_engine import LitellmEngine

    server = await stack.enter_async_context(ScriptedServer(SCRIPT))
    engine = LitellmEngine({"case": (server.base_url, "sk-scripted")})
    return EngineCase(engine, "openai/scripted", "slow", lambda: server.cast.running, True, True)


def _local(engine_name: str):  # type: ignore[no-untyped-def]
    async def build(_: AsyncExitStack, config: RuntimeConfig, folder: Path) -> EngineCase:
        weights = await asyncio.to_thread(
            make_tiny_model, folder / "tiny", context_window=LONG_WINDOW, endless=True
        )
        options = {"kv_cache_mb": 32} if engine_name == "vllm" else {}
        spec = model_spec(
            engine_name,
            location=str(weights),
            provider="local",
            engine_options=options,
            context_window=LONG_WINDOW,
        )
        engine = make_engine(spec, config.model_copy(update={"local_engine": engine_name}))
        return EngineCase(engine, str(weights), "slow", lambda: engine.stats().running, False, False)

    return build


_CASES = {
    "scripted": _scripted,
    "openai_compatible": _over_http,
    "litellm": _litellm,
    "transformers": _local("transformers"),
    "vllm": _local("vllm"),
}
CASE_NAMES = tuple(_CASES)
