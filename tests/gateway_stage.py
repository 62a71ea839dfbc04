"""Processes that call models through the real gateway on a real Ray, with providers that fail on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve

from actors.engines.script import Script
from actors.engines.scripted_server import ScriptedServer
from actors.gateway.open_gateway import open_gateway
from actors.gateway.provider_gateway import ProviderGateway
from actors.model_replica import build_model_app, model_app_name
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ParleyError
from registries.contracts.generation import Attempt, GenerationRequest, GenerationResult, Usage
from registries.specs import ModelSpec, StrategySpec
from tests.machine_pace import paced

STEADY = "gateway-steady"
OPEN_EVERYWHERE_S = 0.25
HEALTHY = Script.model_validate({"echo": True})
BROKEN = Script.model_validate({"answers": [{"faults": [{"kind": "bad_response", "times": None}]}]})


@dataclass
class Moves:
    """An observer that notes when this process saw a breaker move (wall clock: one machine)."""

    seen: list[tuple[float, str, str, int]] = field(default_factory=list)

    def on_selection(self, model: str, provider: str, strategy: str, request_id: str) -> None:
        """Not of interest."""

    def on_attempt(self, attempt: Attempt, usage: Usage | None, request_id: str) -> None:
        """Not of interest."""

    def on_breaker(self, key: str, previous: str, state: str, epoch: int, cause: str) -> None:
        """Note it."""
        self.seen.append((time.time(), key, state, epoch))


class GatewayCaller:
    """One process with a gateway of its own."""

    def __init__(
        self, config: RuntimeConfig, models: list[ModelSpec], strategies: list[StrategySpec]
    ) -> None:
        self._config = config
        self._catalog = Catalog(models, strategies)
        self._moves = Moves()
        self._gateway: ProviderGateway | None = None
        self._asked = 0
        self._stopped = asyncio.Event()

    async def open(self) -> None:
        self._gateway = await open_gateway(self._config, self._catalog, observer=self._moves)

    async def close(self) -> None:
        await self._the_gateway().aclose()

    async def ask(self, model_key: str, prompt: str = "hello", deadline_s: float = 30) -> dict[str, Any]:
        """Model and attempts of the answer, or code and message of the error."""
        request = GenerationRequest(prompt=prompt, model_key=model_key, deadline_s=deadline_s)
        try:
            answer = await self._the_gateway().generate(request)
        except ParleyError as error:
            return {"error": error.code, "message": error.message, "retry_after_s": error.retry_after_s}
        attempts = [(a.model, a.outcome) for a in answer.attempts]
        return {"model": answer.model_resolved, "attempts": attempts, "total_s": answer.timings.total}

    async def ask_for(self, model_key: str, seconds: float, pause_s: float = 0.02) -> list[dict[str, Any]]:
        """Ask again and again."""
        answers, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            answers.append(await self.ask(model_key))
            await asyncio.sleep(pause_s)
        return answers

    async def ask_until_stopped(self, model_key: str, pause_s: float = 0.02) -> list[dict[str, Any]]:
        """Ask again and again until ``stop_asking``."""
        answers = []
        while not self._stopped.is_set():
            answers.append(await self.ask(model_key))
            self._asked += 1
            await asyncio.sleep(pause_s)
        return answers

    async def asked(self) -> int:
        """How many of those calls were answered."""
        return self._asked

    async def stop_asking(self) -> None:
        self._stopped.set()

    async def stream(self, model_key: str, prompt: str) -> tuple[int, str]:
        """Chunks and the final text."""
        chunks, text = 0, ""
        request = GenerationRequest(prompt=prompt, model_key=model_key, deadline_s=30)
        async for item in self._the_gateway().stream(request):
            if isinstance(item, GenerationResult):
                text = item.text
            else:
                chunks += 1
        return chunks, text

    async def moves(self, provider: str) -> list[tuple[float, str, int]]:
        """(time, state, epoch) of each move of this provider's breaker that this process saw."""
        return [(at, state, epoch) for at, key, state, epoch in self._moves.seen if key.startswith(provider)]

    async def snapshot(self) -> dict[str, Any]:
        return self._the_gateway().snapshot()

    async def breaker(self, provider: str) -> dict[str, Any]:
        """The provider's breaker as this process sees it."""
        breakers = self._the_gateway().snapshot()["breakers"]
        return next((b for b in breakers if b["key"].startswith(provider)), {"state": "closed", "epoch": 0})

    def _the_gateway(self) -> ProviderGateway:
        assert self._gateway is not None
        return self._gateway


@dataclass
class Stage:
    """Callers in processes of their own, and the server that their models "flaky…" are at."""

    callers: list[Any]
    server: ScriptedServer
    config: RuntimeConfig
    provider: str
    """Prefix of the flaky provider's breaker key."""
    more: list[ModelSpec] = field(default_factory=list)

    def play(self, script: Script) -> None:
        self.server.cast.load(script)

    async def all(self, method: str, *args: Any) -> list[Any]:
        """The method's answers of every caller."""
        return await asyncio.gather(*(getattr(c, method).remote(*args) for c in self.callers))

    async def states(self) -> list[str]:
        return [b["state"] for b in await self.all("breaker", self.provider)]

    async def calls_from_now(self, count: int, limit_s: float = 30.0) -> None:
        """Until every caller's ``ask_until_stopped`` has had so many more answers."""
        wanted = [asked + count for asked in await self.all("asked")]

        async def answered() -> bool:
            asked = await self.all("asked")
            return all(now >= then for now, then in zip(asked, wanted, strict=True))

        await until(answered, limit_s, f"{count} more answers at each caller")

    async def add_caller(self) -> Any:
        """One more process."""
        return (await self._open(1))[0]

    async def _open(self, count: int) -> list[Any]:
        models, strategies = registry(self.provider, self.server.base_url)
        actor = ray.remote(GatewayCaller).options(num_cpus=0.1, max_concurrency=100)
        callers = [actor.remote(self.config, models + self.more, strategies) for _ in range(count)]
        await asyncio.gather(*(c.open.remote() for c in callers))
        self.callers.extend(callers)
        return callers


def registry(provider: str, base_url: str) -> tuple[list[ModelSpec], list[StrategySpec]]:
    """Model "flaky" falls back on "gateway-steady", "flaky-alone" on nothing; tries are 50 ms apart."""
    flaky = {
        "family": "scripted",
        "provider": provider,
        "engine": "openai_compatible",
        "location": "scripted",
        "base_url": base_url,
        "context_window": 8192,
        "default_strategy": "falls_back",
    }
    retry = {"max_retries": 3, "backoff_factor": 1.0, "max_backoff_s": 0.05}
    models = [
        ModelSpec.model_validate({"key": "flaky", **flaky}),
        ModelSpec.model_validate({"key": "flaky-alone", **flaky, "default_strategy": "alone"}),
        steady_spec(),
    ]
    strategies = [
        StrategySpec.model_validate({"name": "falls_back", "retry": retry, "fallbacks": (STEADY,)}),
        StrategySpec.model_validate({"name": "alone", "retry": {**retry, "max_retries": 0}}),
    ]
    return models, strategies


def steady_spec(key: str = STEADY, **script: Any) -> ModelSpec:
    """A local model (ModelReplica with the scripted engine)."""
    return ModelSpec.model_validate(
        {
            "key": key,
            "family": "scripted",
            "provider": "scripted",
            "engine": "scripted",
            "location": "scripted",
            "context_window": 8192,
            "default_strategy": "alone",
            "engine_options": {"script": {"echo": True, **script}},
            "scaling": {"num_cpus": 0.1},
        }
    )


def deploy(spec: ModelSpec, config: RuntimeConfig) -> str:
    """Run the model's application and wait for it; its name."""
    name = model_app_name(spec.key)
    serve.run(build_model_app(spec, config), name=name, route_prefix=None)
    return name


@asynccontextmanager
async def gateway_stage(
    config: RuntimeConfig, provider: str, callers: int = 3, more: list[ModelSpec] | None = None
) -> AsyncIterator[Stage]:
    """A scripted server and so many calling processes; "gateway-steady" must be deployed."""
    async with ScriptedServer(HEALTHY) as server:
        stage = Stage([], server, config, provider, more or [])
        try:
            await stage._open(callers)
            yield stage
        finally:
            await asyncio.gather(*(c.close.remote() for c in stage.callers), return_exceptions=True)
            for caller in stage.callers:
                ray.kill(caller)


async def until(condition: Callable[[], Awaitable[Any]], limit_s: float, what: str) -> Any:
    """Poll until the condition answers something true; AssertionError after ``limit_s``."""
    end = time.monotonic() + paced(limit_s)
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


def spread_s(times: Sequence[float]) -> float:
    """Seconds from the first to the last."""
    return max(times) - min(times)
