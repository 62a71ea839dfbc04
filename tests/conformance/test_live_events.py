"""What carries live events keeps its promise: quick, in order, and never in anybody's way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.stores import redis_follower, redis_hot_tier
from actors.stores.live_events import LiveEvents, NoLiveEvents, live_events
from actors.stores.mirrored_store import MirroredStore
from actors.stores.open_store import open_store
from actors.stores.redis_hot_tier import MAX_STREAM_ENTRIES, RedisHotTier
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import LeaseLost, ValidationError
from registries.contracts.runs import RunEvent
from serve_app.event_reader import EventReader
from serve_app.event_tail import LIVE_EVERY_S, EventTail
from serve_app.live_feed import LiveFeed
from serve_app.run_topic import RunTopic
from tests.conformance.stores.sample_runs import take, write
from tests.machine_pace import paced
from tests.polling import until

TOKEN = "node.token"


def event(seq: int, type: str = "node.completed", run_id: str = "r1", **data: object) -> RunEvent:
    return RunEvent(run_id=run_id, seq=seq, time=1.0, type=type, node="n", data=data)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis does not answer in time is given up, by contract (see tests/chaos/test_redis_faults.py).
    Here it has time, however busy the machine is."""
    monkeypatch.setattr(redis_hot_tier, "SEND_PATIENCE_S", 30.0)
    monkeypatch.setattr(redis_hot_tier, "READ_PATIENCE_S", 30.0)
    monkeypatch.setattr(redis_follower, "ANSWER_S", 30.0)


@pytest.fixture
async def writer(redis_url: str, redis_instance: str) -> AsyncIterator[RedisHotTier]:
    tier = RedisHotTier(redis_url, redis_instance)
    yield tier
    await tier.close()


@pytest.fixture
async def reader(redis_url: str, redis_instance: str) -> AsyncIterator[RedisHotTier]:
    tier = RedisHotTier(redis_url, redis_instance)
    yield tier
    await tier.close()


class Collected:
    """Everything that one subscription brings."""

    def __init__(self, live: LiveEvents, run_id: str = "r1", after: int = 0) -> None:
        self.events: list[RunEvent] = []
        self.task = asyncio.create_task(self._collect(live, run_id, after))

    async def _collect(self, live: LiveEvents, run_id: str, after: int) -> None:
        async for batch in live.subscribe(run_id, after):
            assert batch
            self.events += batch

    @property
    def ids(self) -> list[tuple[int, str]]:
        return [(e.seq, "token" if e.type == TOKEN else "durable") for e in self.events]

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_a_late_reader_gets_what_is_after_its_seq_then_what_comes(
    writer: RedisHotTier, reader: RedisHotTier
) -> None:
    writer.publish(
        "r1", [event(1), event(2), event(2, TOKEN, text="old"), event(3), event(3, TOKEN, text="a")]
    )
    await until(lambda: _has(reader, 3), 5)
    behind, level = Collected(reader, after=2), Collected(reader, after=3)
    await until(lambda: bool(behind.events) and _joined(reader, 2), 5)
    writer.publish("r1", [event(3, TOKEN, text="b"), event(4)])
    await until(lambda: behind.ids[-1:] == level.ids[-1:] == [(4, "durable")], 5)
    assert behind.ids == [(3, "durable"), (3, "token"), (3, "token"), (4, "durable")]
    assert [e.data.get("text") for e in level.events] == ["b", None]
    assert behind.events[0] == event(3)
    await behind.end()
    await level.end()


async def test_one_connection_follows_many_runs_and_mixes_none(
    writer: RedisHotTier, reader: RedisHotTier
) -> None:
    names = [f"r{number}" for number in range(40)]
    readers = [Collected(reader, name) for name in names]
    await until(lambda: _joined(reader, len(names)), 5)
    for seq in (1, 2, 3):
        for name in names:
            writer.publish(name, [event(seq, run_id=name), event(seq, TOKEN, name, text=name)])
        await asyncio.sleep(0)
    await until(lambda: all(len(collected.events) == 6 for collected in readers), 5)
    for name, collected in zip(names, readers, strict=True):
        assert {e.run_id for e in collected.events} == {name}
        assert collected.ids == [(seq, kind) for seq in (1, 2, 3) for kind in ("durable", "token")]
        await collected.end()
    assert len(reader._follower._client.connection_pool._available_connections) <= 1
    assert not reader._follower._subscriptions


async def test_a_new_reader_does_not_wait_for_the_others_silence(
    writer: RedisHotTier, reader: RedisHotTier
) -> None:
    writer.publish("r2", [event(1, run_id="r2")])
    await until(lambda: _has(reader, 1, "r2"), 5)
    silent = Collected(reader, "r1")
    await until(lambda: _joined(reader, 1), 5)
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(5):
        started = loop.time()
        fresh = Collected(reader, "r2")
        await until(lambda f=fresh: bool(f.events), 5, every_s=0.002)
        took.append(loop.time() - started)
        await fresh.end()
    assert sorted(took)[2] < paced(0.1)
    await silent.end()


async def test_a_slow_reader_loses_the_oldest_and_the_stream_is_bounded(
    writer: RedisHotTier, reader: RedisHotTier
) -> None:
    batches = reader.subscribe("r1", 0)
    first = asyncio.ensure_future(anext(batches))
    await until(lambda: _joined(reader, 1), 5)
    writer.publish("r1", [event(1)])
    assert [e.seq for e in await first] == [1]
    for start in range(2, 5002, 500):
        writer.publish("r1", [event(seq) for seq in range(start, start + 500)])
        await until(lambda newest=start + 499: _is_newest(writer, newest), 10)
    await until(lambda: _position(reader) == (5001, 0), 10)
    late = [e.seq for e in await anext(batches)]
    assert len(late) == 1000 and late[-1] == 5001
    await batches.aclose()  # type: ignore[attr-defined]
    assert await reader._reader.xlen(reader._keys.events("r1")) <= MAX_STREAM_ENTRIES + 200


async def test_closing_ends_every_subscription(writer: RedisHotTier, reader: RedisHotTier) -> None:
    collected = [Collected(reader, f"r{number}") for number in range(3)]
    await until(lambda: _joined(reader, 3), 5)
    await reader.close()
    await reader.close()
    await asyncio.wait_for(asyncio.gather(*(c.task for c in collected)), 5)
    assert [batch async for batch in reader.subscribe("r1", 0)] == []
    assert await reader.read({"r1": 0}) == {}


async def test_what_was_handed_in_before_the_close_is_sent(
    redis_url: str, redis_instance: str, reader: RedisHotTier
) -> None:
    tier = RedisHotTier(redis_url, redis_instance)
    tier.publish("r1", [event(1), event(2)])
    await tier.close()
    assert [e.seq for e in (await reader.read({"r1": 0}))["r1"]] == [1, 2]


async def test_what_lies_there_but_is_not_ours_is_left_alone(
    writer: RedisHotTier, reader: RedisHotTier
) -> None:
    stream = writer._keys.events("r1")
    await writer._writer.xadd(stream, {"e": "{}"}, id="1-0")
    await writer._writer.xadd(stream, {"other": "x"}, id="1-1")
    writer.publish("r1", [event(2)])
    await until(lambda: _has(reader, 2, after=1), 5)
    assert await reader.read({"r1": 0}) == {}, "its first event is missing: a gap"
    collected = Collected(reader)
    await until(lambda: bool(collected.events), 5)
    assert collected.ids == [(2, "durable")]
    await collected.end()


async def test_a_topic_is_fed_until_its_last_user_leaves(writer: RedisHotTier, reader: RedisHotTier) -> None:
    feed, topic, taker = LiveFeed(reader), RunTopic("r1"), EventReader()
    topic.readers.add(taker)
    topic.begin(1)
    topic.wanted = True
    feed.begin(topic)
    feed.begin(topic)
    await until(lambda: _joined(reader, 1), 5)
    writer.publish("r1", [event(1, TOKEN, text="a"), event(2)])
    await until(lambda: topic.seq == 2, 5)
    assert [item.event.type for item in await anext(taker.batches())] == [TOKEN, "node.completed"]
    # A runner's own stream brings the same: nothing is shown twice.
    topic.fed = True
    writer.publish("r1", [event(2, TOKEN, text="b")])
    await until(lambda: _position(reader) == (2, 1), 5)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            raise AssertionError(await anext(taker.batches()))
    feed.end("r1")
    await until(lambda: _joined(reader, 0), 5)
    await feed.aclose()


async def test_a_followed_run_of_another_process_asks_the_store_less(
    redis_url: str, redis_instance: str, tmp_path: Path
) -> None:
    config = RuntimeConfig(home=str(tmp_path), redis_url=redis_url, instance=redis_instance)
    here, there = await open_store(config), await open_store(config)
    tails = {name: EventTail(there, live) for name, live in (("live", live_events(there)), ("not", None))}
    asked_at: dict[str, list[float]] = {name: [] for name in tails}
    for name, tail in tails.items():
        tail._ask = _timed(tail._ask, asked_at[name])  # type: ignore[method-assign]
    try:
        claimed = await take(here)
        takers = {name: EventReader() for name in tails}
        with tails["live"].topic("r1") as live, tails["not"].topic("r1") as plain:
            for name, topic in (("live", live), ("not", plain)):
                topic.readers.add(takers[name])
                tails[name].follow(topic, 1)
            await until(lambda: _joined(live_events(there), 1), 5)  # type: ignore[arg-type]
            brought: list[RunEvent] = []
            live.listeners.add(brought.append)
            for seq in range(2, 22):
                written, token = write(claimed.lease, seq, "round.started"), event(seq, TOKEN, text=str(seq))
                await here.commit(claimed.lease, written)
                live_events(here).publish("r1", [*written.events, token])
                # The store may bring the next event first, and no token is shown behind a later event.
                await until(lambda token=token: token in brought, 5)
            await until(lambda: live.seq == plain.seq == 21, 5)
            await until(lambda: _shortest_pause_s(asked_at["not"]) < LIVE_EVERY_S, 5)
            await until(lambda: len(asked_at["live"]) > 3, 5)
        shown = [item.event for item in await anext(takers["live"].batches())]
        assert [e.seq for e in shown if e.type != TOKEN] == list(range(2, 22))
        assert [e.data["text"] for e in shown if e.type == TOKEN] == [str(seq) for seq in range(2, 22)]
        assert all(item.event.type != TOKEN for item in await anext(takers["not"].batches()))
        assert _shortest_pause_s(asked_at["live"]) > 0.99 * LIVE_EVERY_S, "as seldom as it is said"
        await until(lambda: _joined(live_events(there), 0), 5)  # type: ignore[arg-type]
    finally:
        for tail in tails.values():
            await tail.aclose()
        await here.close()
        await there.close()


async def test_a_lease_that_is_lost_is_held_and_touched_no_more(
    redis_url: str, redis_instance: str, tmp_path: Path
) -> None:
    config = RuntimeConfig(home=str(tmp_path), redis_url=redis_url, instance=redis_instance)
    here, there = await open_store(config), await open_store(config)
    assert isinstance(here, MirroredStore)
    try:
        claimed = await take(here, ttl_s=0.01)
        assert set(here._held) == {"r1"}
        await until(lambda: _takes_over(there), 5)
        renewer = here.open_renewer()
        await asyncio.to_thread(renewer.renew, [claimed.lease], 60.0)
        renewer.close()
        await until(lambda: not here._held, 5)
        second = await take(here, "r2")
        with pytest.raises(LeaseLost):
            await here.commit(replace(second.lease, token=99), write(second.lease, 2, "round.started"))
        assert set(here._held) == {"r2"}, "it was another lease that was lost"
    finally:
        await here.close()
        await there.close()


async def test_a_run_that_is_renewed_no_more_is_not_filled_in_again(
    redis_url: str, redis_instance: str, tmp_path: Path
) -> None:
    """Its attempt ended without an end of its own: the database was away, or the runner broke it."""
    config = RuntimeConfig(home=str(tmp_path), redis_url=redis_url, instance=redis_instance)
    store = await open_store(config)
    assert isinstance(store, MirroredStore)

    async def held() -> int:
        return int((await store.facts()).details["hot_tier"]["held_runs"])

    try:
        left = await take(store, ttl_s=0.2)
        assert set(store._held) == {"r1"}
        renewed = await take(store, "r2", ttl_s=60.0)
        renewer = store.open_renewer()
        await asyncio.to_thread(renewer.renew, [renewed.lease], 600.0)
        renewer.close()
        assert store._held["r2"].until > asyncio.get_running_loop().time() + 60.0, "its renewal counts"

        async def one_is_left() -> bool:
            return await held() == 1

        await until(one_is_left, 5)
        # The first sending of all finds everything missing, and what it found may still be here.
        store._lost.clear()
        store._on_missing([left.lease.run_id, renewed.lease.run_id])
        assert store._lost == {renewed.lease.run_id}
    finally:
        await store.close()


async def test_without_redis_there_is_nothing_to_wait_for() -> None:
    live = live_events(object())
    assert isinstance(live, NoLiveEvents) and not live.is_live
    live.publish("r1", [event(1)])
    assert [batch async for batch in live.subscribe("r1", 0)] == []


async def test_a_url_that_cannot_be_read_is_named_and_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        RedisHotTier("http://user:secret@host", "i")
    assert caught.value.param == "redis_url" and "secret" not in str(caught.value)


async def _has(tier: RedisHotTier, seq: int, run_id: str = "r1", after: int = 0) -> bool:
    found = (await tier.read({run_id: after})).get(run_id, [])
    return bool(found) and found[-1].seq == seq


async def _is_newest(writer: RedisHotTier, seq: int) -> bool:
    found = await writer._writer.xrevrange(writer._keys.events("r1"), count=1)
    return bool(found) and found[0][0] == f"{seq}-0".encode()


def _timed(ask: Any, asked_at: list[float]) -> Any:
    async def timed(followed: dict[str, int]) -> Any:
        asked_at.append(asyncio.get_running_loop().time())
        return await ask(followed)

    return timed


def _shortest_pause_s(asked_at: list[float]) -> float:
    return min((later - earlier for earlier, later in pairwise(asked_at)), default=math.inf)


async def _takes_over(store: Store) -> bool:
    return await store.claim("r1", "other", 60.0, 3) is not None


def _joined(tier: RedisHotTier, count: int) -> bool:
    subscriptions = tier._follower._subscriptions
    return len(subscriptions) == count and all(s.position is not None for s in subscriptions)


def _position(tier: RedisHotTier) -> tuple[int, int] | None:
    (subscription,) = tier._follower._subscriptions
    return subscription.position
