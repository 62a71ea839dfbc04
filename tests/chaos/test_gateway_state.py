"""GatewayState dies while calls run: no call fails, no breaker's state is lost, and it is back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray import serve

from actors.engines.script import Script
from actors.gateway.state_actor import NAME
from actors.ray_flags import NAMESPACE
from registries.contracts.config import RuntimeConfig
from tests.gateway_stage import BROKEN, HEALTHY, STEADY, Stage, deploy, gateway_stage, steady_spec, until
from tests.runtime_cluster import BREAKER_REST_S, RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
BACK_S = 30.0
SLOW_S = 3.0
SLOW = Script.model_validate({"answers": [{"latency_s": SLOW_S}]})


@pytest.fixture(scope="module")
def config(driver: RunningCluster) -> Iterator[RuntimeConfig]:
    """The runtime's configuration, with "gateway-steady" deployed."""
    settings = driver.config.model_copy(update={"models": ()})
    steady = deploy(steady_spec(), settings)
    yield settings
    serve.delete(steady)


@pytest.mark.parametrize("death", ["sigkill", "ray.kill"])
async def test_killing_the_actor_fails_no_call_and_loses_no_state(config: RuntimeConfig, death: str) -> None:
    async with gateway_stage(config, f"dies-by-{death}") as stage:
        before = await _opened(stage)
        running = [c.ask_until_stopped.remote("flaky") for c in stage.callers]
        await stage.calls_from_now(5)
        state = await _describe()
        killed = time.monotonic()
        if death == "sigkill":
            os.kill(state["pid"], signal.SIGKILL)
        else:
            ray.kill(_actor(), no_restart=False)
        reborn = await until(lambda: _reborn(state["incarnation"]), BACK_S, "GatewayState is back")
        await until(lambda: _all_follow(stage, reborn), BACK_S, "every caller follows it")
        print(f"\n{death}: back and followed after {time.monotonic() - killed:.2f} s")
        assert reborn["pid"] != state["pid"]
        await stage.calls_from_now(20)
        await stage.all("stop_asking")
        answers = [a for batch in await asyncio.gather(*running) for a in batch]
        failed = [a for a in answers if "error" in a]
        assert not failed, f"{len(failed)} of {len(answers)} calls failed: {failed[:2]}"
        assert {a["model"] for a in answers} == {STEADY}
        assert await _epochs_only_rise(stage, before)
        newcomer = await stage.add_caller()
        breaker = await newcomer.breaker.remote(stage.provider)
        assert breaker["state"] != "closed" and breaker["epoch"] >= before, "it knows what it never saw"
        print(f"{len(answers)} calls, none failed, epoch {before} -> {breaker['epoch']}")


async def test_a_breaker_that_opens_while_the_actor_is_away_is_not_forgotten(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "opens-alone") as stage:
        incarnation = (await _describe())["incarnation"]
        stage.play(BROKEN)
        ray.kill(_actor(), no_restart=False)
        answer = await stage.callers[0].ask.remote("flaky")
        assert answer.get("model") == STEADY, answer
        reborn = await until(lambda: _reborn(incarnation), BACK_S, "GatewayState is back")
        await until(lambda: _all_follow(stage, reborn), BACK_S, "every caller follows it")
        await until(lambda: _nowhere_closed(stage), 2.0, "the others learn it")


async def test_an_actor_killed_for_good_is_made_again_and_probes_close_the_breaker(
    config: RuntimeConfig,
) -> None:
    async with gateway_stage(config, "for-good") as stage:
        await _opened(stage)
        incarnation = (await _describe())["incarnation"]
        ray.kill(_actor(), no_restart=True)
        await until(lambda: _reborn(incarnation), BACK_S, "a caller makes it again")
        stage.play(HEALTHY)

        async def healed() -> bool:
            await stage.all("ask", "flaky")
            return set(await stage.states()) == {"closed"}

        await until(healed, 15.0, "one probe closes the breaker everywhere")


async def test_killed_while_a_probe_is_out_the_probe_still_closes_the_breaker(config: RuntimeConfig) -> None:
    """The permit was reserved in the actor's memory; its death does not lose what comes of it."""
    async with gateway_stage(config, "probe-out") as stage:
        await _opened(stage)
        stage.play(SLOW)
        asking = [c.ask_for.remote("flaky", BREAKER_REST_S + 2 * SLOW_S) for c in stage.callers]
        state = await until(lambda: _probing(stage), 15.0, "one probe is out")
        os.kill(state["pid"], signal.SIGKILL)
        answers = [a for batch in await asyncio.gather(*asking) for a in batch]
        assert not [a for a in answers if "error" in a]
        await until(lambda: _all_closed(stage), 15.0, "the probe closes the breaker everywhere")
        reborn = await until(lambda: _reborn(state["incarnation"]), BACK_S, "GatewayState is back")
        await until(lambda: _all_follow(stage, reborn), BACK_S, "every caller follows it")
        assert set(await stage.states()) == {"closed"}
        probes = [a for a in answers if a["model"] == "flaky" and a["total_s"] >= SLOW_S]
        print(f"{len(probes)} slow answers of the provider among {len(answers)}")
        assert probes


async def _probing(stage: Stage) -> dict[str, Any] | None:
    return await _describe() if "half_open" in await stage.states() else None


async def _all_closed(stage: Stage) -> bool:
    return set(await stage.states()) == {"closed"}


async def _opened(stage: Stage) -> int:
    """Break the provider, open its breaker in every process; the epoch."""
    stage.play(BROKEN)
    await stage.callers[0].ask.remote("flaky")
    await until(lambda: _nowhere_closed(stage), 2.0, "open everywhere")
    return max(b["epoch"] for b in await stage.all("breaker", stage.provider))


async def _nowhere_closed(stage: Stage) -> bool:
    return "closed" not in await stage.states()


async def _epochs_only_rise(stage: Stage, first: int) -> bool:
    for moves in await stage.all("moves", stage.provider):
        epochs = [epoch for _, _, epoch in moves]
        if epochs != sorted(epochs) or "closed" in [state for _, state, _ in moves]:
            return False
    return min(b["epoch"] for b in await stage.all("breaker", stage.provider)) >= first


def _actor() -> Any:
    return ray.get_actor(NAME, namespace=NAMESPACE)


async def _describe() -> dict[str, Any]:
    description: dict[str, Any] = await _actor().describe.remote()
    return description


async def _reborn(incarnation: str) -> dict[str, Any] | None:
    try:
        found = await _describe()
    except (ValueError, ray.exceptions.RayError):
        return None
    return found if found["incarnation"] != incarnation else None


async def _all_follow(stage: Stage, state: dict[str, Any]) -> bool:
    snapshots = await stage.all("snapshot")
    return all(s["connected"] and s["incarnation"] == state["incarnation"] for s in snapshots)
