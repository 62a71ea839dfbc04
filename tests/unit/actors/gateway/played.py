"""Played parts for the gateway's tests: a clock that only sleeps move, and providers that follow a script."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from actors.gateway.breaker import BreakerPolicy
from actors.gateway.breaker_board import BreakerBoard, LocalBoard
from actors.gateway.provider_gateway import ProviderGateway
from actors.gateway.providers import ProviderTable
from registries.catalog import Catalog
from registries.contracts.config import BreakerConfig, RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.generation import Attempt, GenerationChunk, Usage
from registries.specs import ModelSpec, RetryPolicy, StrategySpec


@dataclass
class Clock:
    """Seconds; ``sleep`` moves it and gives other tasks a turn."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s
        await asyncio.sleep(0)


class PlayedCompleter:
    """Answers with the steps of its script, then with ``"ok"`` for ever; an exception step is raised.

    For streams a list step gives the items (an exception in it is raised there).
    """

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.calls: list[EngineCall] = []
        self.cancelled = 0
        self.arrived = asyncio.Semaphore(0)

    async def arrivals(self, count: int) -> None:
        """Wait until so many more calls have come in."""
        for _ in range(count):
            await self.arrived.acquire()

    def _came(self, call: EngineCall) -> None:
        self.calls.append(call)
        self.arrived.release()

    def _next(self) -> Any:
        return self.steps.pop(0) if self.steps else "ok"

    async def complete(self, call: EngineCall) -> EngineResult:
        self._came(call)
        step = self._next()
        try:
            if asyncio.isfuture(step):
                await step
            if callable(step):
                step = step(call)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(step, Exception):
            raise step
        if isinstance(step, EngineResult):
            return step
        return EngineResult(str(step), "stop", prompt_tokens=10, completion_tokens=5)

    async def stream(self, call: EngineCall) -> AsyncIterator[GenerationChunk | EngineResult]:
        self._came(call)
        step = self._next()
        items = step if isinstance(step, list) else [GenerationChunk(text=step, tokens=2), step]
        if isinstance(step, Exception):
            raise step
        try:
            for item in items:
                if isinstance(item, Exception):
                    raise item
                if asyncio.isfuture(item):
                    await item
                elif isinstance(item, str):
                    yield EngineResult(item, "stop", prompt_tokens=10, completion_tokens=2)
                else:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def abort(self, request_id: str) -> None:
        self.cancelled += 1


@dataclass
class Heard:
    """A GatewayObserver that remembers."""

    selections: list[tuple[str, str, str]] = field(default_factory=list)
    attempts: list[tuple[Attempt, Usage | None]] = field(default_factory=list)
    moves: list[tuple[str, str, str]] = field(default_factory=list)

    def on_selection(self, model: str, provider: str, strategy: str, request_id: str) -> None:
        self.selections.append((model, provider, strategy))

    def on_attempt(self, attempt: Attempt, usage: Usage | None, request_id: str) -> None:
        self.attempts.append((attempt, usage))

    def on_breaker(self, key: str, previous: str, state: str, epoch: int, cause: str) -> None:
        self.moves.append((key, previous, state))


def model(key: str, **fields: Any) -> ModelSpec:
    """A registry entry with the given fields."""
    known = {
        "family": "test",
        "provider": key,
        "engine": "openai_compatible",
        "location": f"there/{key}",
        "base_url": f"http://{key}.test/v1",
        "context_window": 1000,
        "default_strategy": "plain",
    }
    return ModelSpec.model_validate({"key": key, **known, **fields})


def local_model(key: str, **fields: Any) -> ModelSpec:
    """A model that lives in the cluster."""
    return model(key, **{"engine": "scripted", "base_url": None, "provider": "local", **fields})


def strategy(name: str = "plain", **fields: Any) -> StrategySpec:
    """A strategy with the given fields."""
    return StrategySpec.model_validate({"name": name, **fields})


@dataclass
class Stage:
    """A gateway over played providers."""

    gateway: ProviderGateway
    clock: Clock
    players: dict[str, PlayedCompleter]
    board: BreakerBoard
    heard: Heard


def stage(
    players: dict[str, PlayedCompleter],
    *,
    specs: list[ModelSpec] | None = None,
    strategies: list[StrategySpec] | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    **settings: Any,
) -> Stage:
    """One remote model a player; the strategy "plain" falls back along them in order."""
    clock, heard = Clock(), Heard()
    keys = list(players)
    models = specs or [model(key) for key in keys]
    plans = strategies or [strategy(fallbacks=tuple(keys[1:]), retry=RetryPolicy(max_retries=3))]
    settings = {"home": "nowhere", "default_strategy": "plain", "breaker": BreakerConfig(), **settings}
    config = RuntimeConfig.model_validate(settings)
    policy = BreakerPolicy(config.breaker.max_failures, config.breaker.timeout_s)
    board = LocalBoard(policy, clock, random.Random(1), heard)
    gateway = ProviderGateway(
        Catalog(models, plans),
        config,
        ProviderTable(lambda spec: players[spec.key]),
        board,
        heard,
        clock=clock,
        sleep=sleep or clock.sleep,
        rng=random.Random(1),
    )
    return Stage(gateway, clock, players, board, heard)
