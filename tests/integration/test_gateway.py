"""The gateway over several processes of a real Ray: shared breakers, one probe, replicas, loading models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from ray import serve

from registries.contracts.config import RuntimeConfig
from tests.gateway_stage import (
    BROKEN,
    HEALTHY,
    OPEN_EVERYWHERE_S,
    STEADY,
    Stage,
    deploy,
    gateway_stage,
    spread_s,
    steady_spec,
    until,
)
from tests.machine_pace import paced
from tests.runtime_cluster import BREAKER_REST_S, RunningCluster

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
LATE_S = 4.0


@pytest.fixture(scope="module")
def config(driver: RunningCluster) -> Iterator[RuntimeConfig]:
    """The runtime's configuration (breakers: 3 failures, 5 s), with "gateway-steady" deployed."""
    settings = driver.config.model_copy(update={"models": ()})
    steady = deploy(steady_spec(), settings)
    yield settings
    serve.delete(steady)


async def test_three_failures_open_the_breaker_in_every_process(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "opens", callers=4) as stage:
        stage.play(BROKEN)
        answer = await stage.callers[0].ask.remote("flaky")
        assert answer.get("model") == STEADY, answer
        assert [o for _, o in answer["attempts"]] == ["error", "error", "error", "skipped_open", "ok"]
        seen = await until(lambda: _moved(stage, "open"), 2.0, "the breaker opens in every process")
        assert spread_s(seen) <= paced(OPEN_EVERYWHERE_S)
        print(f"\nopen in 4 processes within {spread_s(seen) * 1000:.0f} ms")
        calls = stage.server.cast.player.calls
        for fallback in await stage.all("ask", "flaky"):
            assert fallback["attempts"] == [("flaky", "skipped_open"), (STEADY, "ok")]
        resting = await stage.callers[1].ask.remote("flaky-alone")
        assert resting["error"] == "capacity" and 0 < resting["retry_after_s"] <= BREAKER_REST_S
        assert stage.server.cast.player.calls == calls == 3, "an open breaker costs the provider nothing"


async def test_one_failure_in_each_of_three_processes_opens_too(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "adds-up") as stage:
        stage.play(BROKEN)
        answers = await stage.all("ask", "flaky-alone")
        assert {a.get("error") for a in answers} == {"provider_error"}
        seen = await until(lambda: _moved(stage, "open"), 2.0, "three processes' failures add up")
        assert spread_s(seen) <= paced(OPEN_EVERYWHERE_S)


async def test_recovery_by_one_probe_for_the_whole_cluster(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "recovers", callers=4) as stage:
        stage.play(BROKEN)
        await stage.callers[0].ask.remote("flaky")
        await until(lambda: _moved(stage, "open"), 2.0, "open everywhere")
        slow = {"answers": [{"texts": ["fine again"], "latency_s": 1.0}]}
        stage.play(type(HEALTHY).model_validate(slow))
        probing = [c.ask_for.remote("flaky", BREAKER_REST_S + 2) for c in stage.callers]
        calls: list[tuple[float, int]] = []

        async def moved(state: str) -> list[float]:
            calls.append((time.time(), stage.server.cast.player.calls))
            return await _moved(stage, state)

        seen = await until(lambda: moved("half_open"), BREAKER_REST_S + 3, "a probe starts")
        closed = await until(lambda: moved("closed"), 5.0, "its answer closes the breaker")
        # Not fewer: what closed it is an answer.
        assert max(n for at, n in calls if at < min(closed)) <= 1, "one probe in the whole cluster"
        assert spread_s(closed) <= paced(OPEN_EVERYWHERE_S)
        answers = [a for batch in await asyncio.gather(*probing) for a in batch]
        assert all("error" not in a for a in answers), [a for a in answers if "error" in a][:3]
        assert {a["model"] for a in answers} == {"flaky", STEADY}
        print(
            f"\nhalf-open in all within {spread_s(seen) * 1000:.0f} ms,"
            f" closed within {spread_s(closed) * 1000:.0f} ms"
        )


async def test_whole_and_streamed_answers_of_a_replica(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "plain", callers=1) as stage:
        answer = await stage.callers[0].ask.remote(STEADY, "to be or not")
        assert answer["model"] == STEADY and [o for _, o in answer["attempts"]] == ["ok"]
        chunks, text = await stage.callers[0].stream.remote(STEADY, "to be or not")
        assert chunks >= 1 and text == "to be or not"
        chunks, text = await stage.callers[0].stream.remote("flaky", "to be or not")
        assert chunks >= 1 and text == "to be or not"
        assert (await stage.callers[0].snapshot.remote())["connected"]


async def test_a_stream_falls_back_before_its_first_token(config: RuntimeConfig) -> None:
    async with gateway_stage(config, "streams", callers=1) as stage:
        stage.play(BROKEN)
        chunks, text = await stage.callers[0].stream.remote("flaky", "to be or not")
        assert chunks >= 1 and text == "to be or not"


async def test_a_model_that_is_not_there_yet_is_waited_for(config: RuntimeConfig) -> None:
    late = steady_spec("gateway-late")
    async with gateway_stage(config, "late", callers=1, more=[late]) as stage:
        started = time.monotonic()
        answer = stage.callers[0].ask.remote(late.key, "hello", LATE_S)
        told = await answer
        assert told["error"] == "capacity" and "still loading" in told["message"], told
        assert told["retry_after_s"] and time.monotonic() - started < 2 * LATE_S, "never past the deadline"
        answer = stage.callers[0].ask.remote(late.key)
        name = await asyncio.to_thread(deploy, late, config)
        assert (await answer)["model"] == late.key
        await asyncio.to_thread(serve.delete, name)


async def _moved(stage: Stage, state: str) -> list[float]:
    """When each process saw the breaker move there; empty until all have."""
    moves = await stage.all("moves", stage.provider)
    times = [next((at for at, to, _ in seen if to == state), None) for seen in moves]
    return [t for t in times if t is not None] if all(times) else []
