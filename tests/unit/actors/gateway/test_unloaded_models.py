"""A runtime that leaves the embedded models out: they end no chain, and nobody waits for them."""

from __future__ import annotations

import pytest

from actors.gateway.breaker import BreakerPolicy
from actors.gateway.breaker_board import LocalBoard
from actors.gateway.local_gateway import local_gateway
from actors.gateway.provider_gateway import ProviderGateway
from actors.gateway.providers import ProviderTable
from actors.gateway.serve_completer import ServeCompleter
from actors.gateway.serve_readiness import ServeReadiness
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Completer
from registries.contracts.errors import CapacityError, Fault, ProviderError, ValidationError
from registries.contracts.generation import GenerationRequest
from registries.loader import load_catalog
from registries.specs import ModelSpec
from tests.unit.actors.gateway.played import Clock, PlayedCompleter

KEYED = RuntimeConfig(home="/nowhere", provider_keys={"OPENAI_API_KEY": "sk-wrong"})


def keyed_gateway(*steps: object) -> tuple[ProviderGateway, Clock]:
    """The package's catalog with a provider key; Serve knows no application of a local model."""
    clock, far = Clock(), PlayedCompleter(*steps)

    def make(spec: ModelSpec) -> Completer:
        if spec.is_local:
            return ServeCompleter(
                spec, spec.key, "D", ServeReadiness(read=dict, clock=clock), lambda d, a: None
            )
        return far

    board = LocalBoard(BreakerPolicy(), clock)
    gateway = ProviderGateway(
        load_catalog(KEYED), KEYED, ProviderTable(make), board, clock=clock, sleep=clock.sleep
    )
    return gateway, clock


def ask(key: str | None = "gpt-5.6") -> GenerationRequest:
    return GenerationRequest(prompt="What is the capital of France?", model_key=key)


def refused() -> ProviderError:
    return ProviderError("openai gpt-5.6 answered 401: wrong key", Fault.AUTH, "openai", "gpt-5.6")


@pytest.mark.parametrize("key", ["gpt-5.6", "tier:strong", None])
async def test_a_refused_key_is_told_at_once(key: str | None) -> None:
    gateway, clock = keyed_gateway(refused(), refused(), refused())
    with pytest.raises(ProviderError, match="401: wrong key") as caught:
        await gateway.generate(ask(key))
    assert caught.value.fault is Fault.AUTH and not clock.slept


async def test_an_open_breaker_is_told_at_once_with_the_time_to_come_back() -> None:
    gateway, clock = keyed_gateway(refused())
    with pytest.raises(ProviderError):
        await gateway.generate(ask())
    with pytest.raises(CapacityError) as caught:
        await gateway.generate(ask())
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s > 500
    assert not clock.slept


async def test_a_model_that_is_not_loaded_is_refused_at_once_with_those_that_are() -> None:
    gateway, clock = keyed_gateway()
    with pytest.raises(
        ValidationError, match="'nano-m' is not loaded in this runtime; loaded: none"
    ) as caught:
        await gateway.generate(ask("nano-m"))
    assert caught.value.param == "model_key" and not clock.slept


async def test_without_a_runtime_any_local_model_is_loaded_when_it_is_asked_for() -> None:
    gateway = await local_gateway(KEYED, load_catalog(KEYED), make=lambda spec: PlayedCompleter("4"))
    assert (await gateway.generate(ask("nano-m"))).model_resolved == "nano-m"
    await gateway.aclose()
