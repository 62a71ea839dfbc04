"""Endpoints, their breaker keys, and the gateway without a cluster."""

from __future__ import annotations

import asyncio

import pytest

from actors.gateway.engine_completer import EngineCompleter
from actors.gateway.local_gateway import local_gateway
from actors.gateway.providers import ProviderTable, breaker_key
from actors.gateway.serve_completer import ServeCompleter
from actors.gateway.serve_providers import serve_providers
from actors.gateway.timed_stream import timed_stream
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError
from registries.contracts.generation import GenerationRequest, GenerationResult
from registries.specs import ModelSpec
from tests.machine_pace import paced
from tests.unit.actors.gateway.played import Clock, PlayedCompleter, local_model, model, strategy


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (local_model("nano-m"), "local/nano-m"),
        (model("a", base_url="http://h:1/v1/"), "a/http://h:1/v1"),
        (model("a", base_url="https://h/v1", api_key_env="A_KEY"), "a/https://h/v1#A_KEY"),
        (model("a", engine="litellm", base_url=None, provider="openai"), "openai/default"),
    ],
)
def test_what_fails_together_rests_together(spec: ModelSpec, key: str) -> None:
    assert breaker_key(spec) == key


async def test_completers_are_made_once_and_closed_with_the_table() -> None:
    made: list[str] = []

    class Closing(PlayedCompleter):
        async def aclose(self) -> None:
            made.append("closed")

    def make(spec: ModelSpec) -> PlayedCompleter:
        made.append(spec.key)
        return Closing() if spec.key == "a" else PlayedCompleter()

    table = ProviderTable(make)
    assert table.completer(model("a")) is table.completer(model("a"))
    table.completer(model("b"))
    await table.aclose()
    await table.aclose()
    assert made == ["a", "b", "closed"]


def test_each_kind_of_model_has_its_way_in_the_cluster() -> None:
    table = serve_providers(RuntimeConfig(home="x"))
    remote = model("r", engine="litellm", base_url=None)
    assert isinstance(table.completer(local_model("m")), ServeCompleter)
    assert isinstance(table.completer(remote), ServeCompleter)
    assert isinstance(table.completer(model("u")), EngineCompleter)
    assert isinstance(table.completer(model("s", engine="scripted")), EngineCompleter)


async def test_the_local_gateway_answers_without_a_cluster() -> None:
    config = RuntimeConfig(home="x", default_strategy="plain")
    catalog = Catalog([local_model("m")], [strategy()])
    gateway = await local_gateway(config, catalog, make=lambda spec: PlayedCompleter("4"))
    request = GenerationRequest(prompt="2 + 2?")
    assert gateway.resolve_model(request) == "m" and gateway.select_strategy(request).name == "plain"
    assert (await gateway.generate(request)).text == "4"
    shared = gateway.snapshot()
    assert shared["shared"] is False and shared["breakers"][0]["key"] == "local/m"
    gateway.adopt_state(gateway.export_state())
    await gateway.aclose()


async def test_the_local_gateway_uses_the_engine_table() -> None:
    config = RuntimeConfig(home="x", default_strategy="plain")
    gateway = await local_gateway(config, Catalog([local_model("m")], [strategy()]))
    answer = await gateway.generate(GenerationRequest(prompt="2 + 2?"))
    assert answer.model_resolved == "m" and answer.text
    await gateway.aclose()


async def test_a_stream_has_a_total_and_an_idle_limit() -> None:
    clock = Clock()

    async def source():  # type: ignore[no-untyped-def]
        try:
            for n in range(3):
                yield n
                clock.now += 1
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    closed: list[bool] = []
    got = []
    with pytest.raises(TimeoutError):
        async for item in timed_stream(source(), 1.5, clock):
            got.append(item)
    assert got == [0, 1, 2] and closed == [True]
    with pytest.raises(TimeoutError):
        async for _ in timed_stream(source(), 100, clock, idle_s=0.01):
            pass
    assert closed == [True, True]


def loading_for(seconds: float, try_s: float) -> Catalog:
    """A model whose load takes so long, under a strategy that gives a try ``try_s``."""
    spec = local_model("m", engine_options={"load_time_s": seconds, "script": {"echo": True}})
    return Catalog([spec], [strategy(limits={"timeout_s": try_s})])


@pytest.mark.parametrize("stream", [False, True])
async def test_loading_is_told_apart_and_takes_nothing_off_the_trys_time(stream: bool) -> None:
    try_s = paced(0.2)
    load_s = 1.25 * try_s
    catalog = loading_for(load_s, try_s)
    gateway = await local_gateway(RuntimeConfig(home="x", default_strategy="plain"), catalog)
    for loads in (True, False):
        request = GenerationRequest(prompt="hello", model_key="m", deadline_s=20)
        if stream:
            answer = [item async for item in gateway.stream(request)][-1]
        else:
            answer = await gateway.generate(request)
        assert isinstance(answer, GenerationResult)
        assert [a.outcome for a in answer.attempts] == ["ok"]
        assert (answer.timings.load_time >= load_s) is loads
        assert answer.timings.inference_time < try_s
        assert answer.timings.total >= answer.timings.load_time + answer.timings.inference_time - 1e-6
    await gateway.aclose()


async def test_a_load_longer_than_the_deadline_is_no_fault_of_the_provider() -> None:
    gateway = await local_gateway(RuntimeConfig(home="x", default_strategy="plain"), loading_for(60, 0.2))
    for _ in range(4):
        with pytest.raises(CapacityError, match="still loading") as caught:
            await gateway.generate(GenerationRequest(prompt="hello", model_key="m", deadline_s=0.1))
        assert "still loading" in caught.value.context["attempts"][0]["message"]
    assert {b["state"] for b in gateway.snapshot()["breakers"]} == {"closed"}
    await gateway.aclose()
