"""Two processes and a GatewayState that dies: in one event loop, without Ray."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from actors.gateway.breaker import (
    Allowed,
    Blocked,
    BreakerPolicy,
    BreakerRecord,
    BreakerState,
    Outcome,
    OutcomeKind,
    ProbeNeeded,
)
from actors.gateway.state_actor import GatewayState
from actors.gateway.state_client import StateClient
from actors.gateway.state_core import StateCore, StateSnapshot
from actors.gateway.state_link import StateAway
from tests.machine_pace import paced
from tests.unit.actors.gateway.played import Clock, Heard

POLICY = BreakerPolicy(max_failures=3, open_s=60.0)


class PlayedCluster:
    """A StateLink to a GatewayState in this event loop, which can be killed and born again."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self._policy = policy
        self.actor: GatewayState | None = GatewayState(policy)
        self._calls: set[asyncio.Task[object]] = set()

    async def kill(self) -> None:
        self.actor = None
        for call in list(self._calls):
            call.cancel()
        await asyncio.sleep(0)

    def revive(self) -> None:
        self.actor = GatewayState(self._policy)

    async def _call(self, method: str, *args: object) -> object:
        if self.actor is None:
            raise StateAway("dead")
        call = asyncio.ensure_future(getattr(self.actor, method)(*args))
        self._calls.add(call)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if call.cancelled():
                raise StateAway("died") from None
            call.cancel()
            raise
        finally:
            self._calls.discard(call)

    async def sync(self, records: Sequence[BreakerRecord]) -> StateSnapshot:
        return await self._call("sync", records)  # type: ignore[return-value]

    async def push(
        self, incarnation: str, outcomes: Sequence[Outcome], records: Sequence[BreakerRecord]
    ) -> str:
        return await self._call("push", incarnation, outcomes, records)  # type: ignore[return-value]

    async def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        return await self._call("permit", key, lease_s)  # type: ignore[return-value]

    async def watch(self, incarnation: str, version: int, timeout_s: float) -> StateSnapshot:
        return await self._call("watch", incarnation, version, timeout_s)  # type: ignore[return-value]


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Poll with a deadline."""
    end = time.monotonic() + paced(limit_s)
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def processes(
    cluster: PlayedCluster, count: int, policy: BreakerPolicy = POLICY
) -> AsyncIterator[list[StateClient]]:
    clients = [StateClient(cluster, policy, rng=random.Random(n)) for n in range(count)]
    for client in clients:
        await client.start()
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()


def fail(client: StateClient, times: int = 1) -> None:
    for _ in range(times):
        admission = client.admit("p")
        epoch = admission.epoch if isinstance(admission, Allowed) else 0
        client.report(Outcome("p", OutcomeKind.FAILURE, epoch, cause="down"))


def state(client: StateClient) -> str:
    return client.fact("p").state


async def test_failures_of_different_processes_add_up_and_open_everywhere() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 3) as clients:
        started = time.monotonic()
        for client in clients:
            fail(client)
        await until(lambda: all(state(c) == "open" for c in clients))
        assert time.monotonic() - started < paced(0.25)
        assert {c.fact("p").epoch for c in clients} == {1}


async def test_a_success_anywhere_clears_the_count_everywhere() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 2) as (a, b):
        fail(a, 2)
        await until(lambda: b.records() != () and b.records()[0].failures == 2)
        b.report(Outcome("p", OutcomeKind.SUCCESS, 0))
        await until(lambda: a.records() == ())
        fail(a, 2)
        assert state(a) == "closed"


async def test_one_probe_for_the_whole_cluster_and_its_answer_reaches_all() -> None:
    policy = BreakerPolicy(max_failures=1, open_s=0.05)
    cluster = PlayedCluster(policy)
    async with processes(cluster, 4, policy) as clients:
        fail(clients[0])
        await until(lambda: all(state(c) == "open" for c in clients))
        await until(lambda: all(isinstance(c.admit("p"), ProbeNeeded) for c in clients))
        answers = await asyncio.gather(*(c.permit("p", 30) for c in clients))
        permits = [(c, a) for c, a in zip(clients, answers, strict=True) if isinstance(a, Allowed)]
        assert len(permits) == 1
        client, permit = permits[0]
        client.report(Outcome("p", OutcomeKind.SUCCESS, permit.epoch, permit.permit_id))
        await until(lambda: all(state(c) == "closed" for c in clients))
        assert {c.fact("p").epoch for c in clients} == {3}


class SlowAnswers(PlayedCluster):
    """Grants at once and tells it late."""

    def __init__(self, policy: BreakerPolicy) -> None:
        super().__init__(policy)
        self.asked = asyncio.Event()
        self.told = asyncio.Event()

    async def permit(self, key: str, lease_s: float) -> tuple[Allowed | Blocked, BreakerRecord]:
        answer = await super().permit(key, lease_s)
        self.asked.set()
        await self.told.wait()
        return answer


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_permit_that_comes_too_late_is_given_back(leaves: bool) -> None:
    policy = BreakerPolicy(max_failures=1, open_s=0.05)
    cluster = SlowAnswers(policy)
    async with processes(cluster, 2, policy) as (a, b):
        fail(a)
        await until(lambda: all(isinstance(c.admit("p"), ProbeNeeded) for c in (a, b)))
        asking = asyncio.create_task(a.permit("p", 30))
        await cluster.asked.wait()
        if leaves:
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        else:
            answer = await asking
            assert isinstance(answer, Blocked) and answer.reason == "probing"
        await until(lambda: isinstance(b.admit("p"), Blocked))
        cluster.told.set()
        await until(lambda: isinstance(b.admit("p"), ProbeNeeded))
        assert isinstance(await b.permit("p", 30), Allowed)


async def test_a_reborn_actor_learns_everything_from_its_callers() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 2) as (a, b):
        fail(a, 3)
        await until(lambda: state(b) == "open")
        await cluster.kill()
        await until(lambda: not a.connected and not b.connected)
        assert state(a) == state(b) == "open", "the own breakers go on"
        cluster.revive()
        await until(lambda: a.connected and b.connected)
        async with processes(cluster, 1) as (newcomer,):
            assert state(newcomer) == "open" and newcomer.fact("p").epoch == 1
            blocked = newcomer.admit("p")
            assert isinstance(blocked, Blocked) and blocked.retry_after_s > 50


async def test_what_happens_while_the_actor_is_away_is_not_lost() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 2) as (a, b):
        await cluster.kill()
        await until(lambda: not a.connected and not b.connected)
        fail(a, 3)
        assert state(a) == "open" and state(b) == "closed"
        cluster.revive()
        await until(lambda: state(b) == "open")


async def test_counted_failures_survive_the_actor_and_are_not_counted_twice() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 2) as (a, b):
        fail(a, 2)
        await until(lambda: bool(b.records()) and b.records()[0].failures == 2)
        await cluster.kill()
        cluster.revive()
        await until(lambda: a.connected and b.connected)
        await until(lambda: a.describe()["incarnation"] == b.describe()["incarnation"])
        assert state(a) == state(b) == "closed"
        fail(b)
        await until(lambda: state(a) == "open")


async def test_without_an_actor_the_process_probes_by_itself() -> None:
    policy = BreakerPolicy(max_failures=1, open_s=0.02)
    cluster = PlayedCluster(policy)
    await cluster.kill()
    async with processes(cluster, 1, policy) as (client,):
        fail(client)
        await until(lambda: isinstance(client.admit("p"), ProbeNeeded))
        permit = await client.permit("p", 30)
        assert isinstance(permit, Allowed) and permit.permit_id
        client.report(Outcome("p", OutcomeKind.SUCCESS, permit.epoch, permit.permit_id))
        assert state(client) == "closed"


async def test_a_state_adopted_from_a_task_is_passed_on() -> None:
    cluster = PlayedCluster()
    async with processes(cluster, 2) as (a, b):
        a.adopt([BreakerRecord("p", BreakerState.OPEN, 7, open_for_s=30, cause="seen by a task")])
        await until(lambda: b.fact("p").epoch == 7 and state(b) == "open")


async def test_closing_ends_the_tasks_and_twice_is_fine() -> None:
    before = asyncio.all_tasks()
    async with processes(PlayedCluster(), 1) as (client,):
        await client.aclose()
    assert asyncio.all_tasks() == before


async def test_an_outcome_of_an_older_incarnation_is_left_out() -> None:
    actor = GatewayState(POLICY)
    outcomes = [Outcome("p", OutcomeKind.FAILURE, 0)] * 3
    answered = await actor.push("someone else's", outcomes, [])
    assert (await actor.sync([])).records == ()
    await actor.push(answered, outcomes, [])
    assert (await actor.sync([])).records[0].state is BreakerState.OPEN
    assert (await actor.describe())["breakers"] == {"p": "open"}


async def test_a_quiet_watch_answers_by_its_timeout() -> None:
    actor = GatewayState(POLICY)
    incarnation = (await actor.sync([])).incarnation
    snapshot = await actor.watch(incarnation, 0, 0.01)
    assert snapshot == StateSnapshot(incarnation, 0, ())
    assert (await actor.watch("older", 0, 100)).incarnation == incarnation


def test_watchers_get_only_what_is_newer() -> None:
    clock = Clock()
    core = StateCore(uuid.uuid4().hex, POLICY, clock)
    core.push([Outcome("a", OutcomeKind.FAILURE, 0)], [])
    seen = core.version
    core.push([Outcome("b", OutcomeKind.FAILURE, 0), Outcome("b", OutcomeKind.IGNORED, 0)], [])
    assert [r.key for r in core.since(seen).records] == ["b"]
    assert core.since(core.version).records == ()


async def test_moves_are_told_to_the_observer() -> None:
    heard = Heard()
    client = StateClient(PlayedCluster(), POLICY, observer=heard)
    await client.start()
    fail(client, 3)
    await client.aclose()
    assert heard.moves == [("p", "closed", "open")]


@pytest.mark.parametrize("seed", range(5))
async def test_random_deaths_never_lose_the_open_state(seed: int) -> None:
    """Failures, deaths and rebirths in random order: once open, every process says open until its time."""
    rng = random.Random(seed)
    cluster = PlayedCluster()
    async with processes(cluster, 3) as clients:
        fails = 0
        while fails < 3:
            if rng.random() < 0.5:
                fail(rng.choice(clients))
                fails += 1
            elif cluster.actor is None:
                cluster.revive()
            else:
                await cluster.kill()
            await asyncio.sleep(rng.random() * 0.005)
        fail(clients[0], 3)
        if cluster.actor is None:
            cluster.revive()
        await until(lambda: all(state(c) == "open" for c in clients))
