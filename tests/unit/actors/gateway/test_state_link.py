"""The wire to GatewayState: every way of being away is one error, and the actor is looked up anew."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from actors.gateway.breaker import BreakerPolicy, Outcome, OutcomeKind
from actors.gateway.state_actor import GatewayState
from actors.gateway.state_link import RayStateLink, StateAway


class PlayedActor:
    """A handle whose methods run in this event loop, or raise what they are told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self._state = GatewayState(BreakerPolicy())

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            if self.error is not None:
                raise self.error
            return await getattr(self._state, method)(*args)

        return SimpleNamespace(remote=call)


async def test_every_method_reaches_the_actor() -> None:
    link = RayStateLink(PlayedActor)
    with pytest.raises(StateAway, match="not been looked up"):
        await link.push("", [], [])
    snapshot = await link.sync([])
    failures = [Outcome("p", OutcomeKind.FAILURE, 0)] * 3
    assert await link.push(snapshot.incarnation, failures, []) == snapshot.incarnation
    seen = await link.watch(snapshot.incarnation, 0, 1)
    assert seen.records[0].state == "open"
    answer, record = await link.permit("p", 5)
    assert answer.retry_after_s > 50 and record.epoch == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "error", [ray.exceptions.RayActorError(), ray.exceptions.GetTimeoutError(), TimeoutError()]
)
async def test_an_actor_that_cannot_answer_is_away(error: Exception) -> None:
    actor = PlayedActor()
    link = RayStateLink(lambda: actor)
    await link.sync([])
    actor.error = error
    with pytest.raises(StateAway):
        await link.permit("p", 1)


async def test_a_dead_actor_is_looked_up_again_at_the_next_sync() -> None:
    found = [PlayedActor(ray.exceptions.RayActorError()), PlayedActor()]
    link = RayStateLink(lambda: found.pop(0))
    with pytest.raises(StateAway):
        await link.sync([])
    assert (await link.sync([])).version == 0 and not found


async def test_a_cluster_that_cannot_be_asked_is_away() -> None:
    def find() -> Any:
        raise ConnectionError("no cluster")

    with pytest.raises(StateAway, match="no cluster"):
        await RayStateLink(find).sync([])


async def test_cancelling_a_watch_ends_it() -> None:
    actor = PlayedActor()
    link = RayStateLink(lambda: actor)
    snapshot = await link.sync([])
    watch = asyncio.create_task(link.watch(snapshot.incarnation, snapshot.version, 60))
    await asyncio.sleep(0)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
