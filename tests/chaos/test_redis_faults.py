"""Redis is killed, flushed, full, frozen, away: no event is lost or doubled, no commit is held up."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import redis
import structlog

from actors.stores.live_events import live_events
from actors.stores.mirrored_store import MirroredStore
from actors.stores.records import RunWrite
from actors.stores.redis_hot_tier import READ_PATIENCE_S, SEND_PATIENCE_S
from tests.chaos.database_outages import Outage, frozen, killed
from tests.chaos.mirrored_runs import TOKEN, Follower, Writer, event, mirrored, start_runs
from tests.machine_pace import paced
from tests.own_server import OwnServer
from tests.polling import until
from tests.redis_server import own_redis

RUNS, STEPS, EVERY_S = 4, 60, 0.02
STORES = 2
"""Each has a breaker of its own for every side."""
AWAY_S = 1.0
TRIES = 5


@pytest.fixture
def server() -> Iterator[OwnServer]:
    with own_redis() as running:
        yield running


@asynccontextmanager
async def _flushed(server: OwnServer) -> AsyncIterator[None]:
    with redis.Redis.from_url(server.url) as client:
        await asyncio.to_thread(client.flushall)
    yield


@asynccontextmanager
async def _full(server: OwnServer) -> AsyncIterator[None]:
    with redis.Redis.from_url(server.url) as client:
        await asyncio.to_thread(client.config_set, "maxmemory", "1")
        try:
            yield
        finally:
            await asyncio.to_thread(client.config_set, "maxmemory", "0")


FAULTS: dict[str, Outage] = {
    "killed and restarted empty": killed,
    "frozen": frozen,
    "flushed": _flushed,
    "full": _full,
}


async def _drive(writers: list[Writer], steps: int) -> None:
    async def one(writer: Writer) -> None:
        for _ in range(steps):
            await writer.step()
            await asyncio.sleep(EVERY_S)

    await asyncio.gather(*(one(writer) for writer in writers))


async def _drive_until(writers: list[Writer], condition: Callable[[], bool]) -> None:
    """Tokens are volatile: those of a moment in which Redis was late are lost, later ones come."""
    async with asyncio.timeout(paced(10)):
        while not condition():
            await _drive(writers, 1)


def _commits_since(writers: list[Writer], before: Sequence[int]) -> list[float]:
    """How long each commit took of which the writers had these numbers before."""
    return [seconds for writer, n in zip(writers, before, strict=True) for seconds in writer.commits_s[n:]]


def _is_mirrored(server: OwnServer, store: MirroredStore, writers: list[Writer], after: int = 0) -> bool:
    """Whether Redis has all of these runs, without a gap; their leases are renewed meanwhile."""
    store.touch([writer.lease.run_id for writer in writers])
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return all(
            _durable(client.xrange(f"parley:i:run:{writer.lease.run_id}:events", min=f"{after + 1}-0"))
            == list(range(after + 1, writer.seq + 1))
            for writer in writers
        )


def _durable(entries: Any) -> list[int]:
    """Numbers of the durable events; tokens' entries are SEQ-1, SEQ-2 …"""
    return [int(key.partition("-")[0]) for key, _ in entries if key.endswith("-0")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_event_is_read_once_in_order_and_no_commit_waits(
    server: OwnServer, tmp_path: Path, fault: str
) -> None:
    async with mirrored(tmp_path, server.url, "i") as here, mirrored(tmp_path, server.url, "i") as there:
        # From the first on: a read that is late on a busy machine is away before the fault as well.
        with structlog.testing.capture_logs() as lines:
            writers = await start_runs(here, RUNS)
            followers = [Follower(there, writer.lease.run_id) for writer in writers]
            reading = [asyncio.create_task(follower.read()) for follower in followers]
            await _drive(writers, STEPS)
            await _drive_until(writers, lambda: all(f.live > 0 and f.tokens > 0 for f in followers))
            before = [len(writer.commits_s) for writer in writers]
            driving = asyncio.create_task(_drive(writers, STEPS))
            async with FAULTS[fault](server):
                await asyncio.sleep(AWAY_S)
                with suppress(TimeoutError):
                    await until(lambda: len(_commits_since(writers, before)) > 2 * RUNS, 5)
                commits_s = _commits_since(writers, before)
            await driving
            for follower, writer in zip(followers, writers, strict=True):
                await until(lambda f=follower, w=writer: f.seq == w.seq, 5)
            # Back by itself, with the whole of every run that is under way, also without a new event.
            await until(lambda: _is_mirrored(server, here, writers), 60)
        tokens = [follower.tokens for follower in followers]
        await _drive_until(writers, lambda: all(f.tokens > n for f, n in zip(followers, tokens, strict=True)))
        for writer in writers:
            await writer.end()
        await asyncio.wait_for(asyncio.gather(*reading), paced(10))
        for follower, writer in zip(followers, writers, strict=True):
            stored = await here.events(writer.lease.run_id, "default")
            assert follower.events == stored
            assert [e.seq for e in stored] == list(range(1, writer.seq + 1))
    changes = [(line["event"], line.get("side")) for line in lines if line["event"].startswith("hot_tier")]
    for side in {side for _, side in changes}:
        away = 0
        for event_name, of in changes:
            away += (of == side) * (1 if event_name == "hot_tier_away" else -1)
            assert 0 <= away <= STORES, f"one line a change of state, not one a failure: {changes}"
    # Each writer has one commit on its way at a time: had it waited for the fault's end, there would be one a
    # writer at most; had each waited for as long as a sending may take, most would have taken so long.
    assert len(commits_s) > 2 * RUNS and median(commits_s) < SEND_PATIENCE_S, commits_s


async def test_a_redis_that_hangs_holds_no_reader_up(server: OwnServer, tmp_path: Path) -> None:
    async with mirrored(tmp_path, server.url, "i") as store:
        (writer,) = await start_runs(store, 1)
        await writer.step()
        await until(lambda: _is_mirrored(server, store, [writer], after=1), 5)
        server.freeze()
        await writer.step()
        took: list[float] = []
        for _ in range(40):
            started = time.monotonic()
            assert [e.seq for e in await store.tail({"r0": 1})] == [2, 3]
            took.append(time.monotonic() - started)
        # One reader waited for the answer that did not come; while the breaker is open nobody does. (A busy
        # machine makes some slow; had all waited, all would be.)
        assert sum(seconds >= READ_PATIENCE_S for seconds in took) < len(took) / 2
        server.thaw()
        await until(lambda: _is_mirrored(server, store, [writer], after=1), 10)


async def test_a_redis_that_never_was_there_is_no_error(tmp_path: Path) -> None:
    with own_redis() as gone:
        url = gone.url
    async with mirrored(tmp_path, url, "i") as store:
        (writer,) = await start_runs(store, 1)
        for _ in range(5):
            await writer.step()
        await writer.end()
        assert [e.seq for e in await store.tail({"r0": 0})] == list(range(1, 8))
        facts = await store.facts()
        await until(lambda: not store._tier.is_up, 5)
        assert facts.backend == "sqlite"
        assert (await store.facts()).details["hot_tier"]["state"] == "away"


async def test_a_late_writer_does_not_turn_the_mirror_back(server: OwnServer, tmp_path: Path) -> None:
    async with mirrored(tmp_path, server.url, "i") as one, mirrored(tmp_path, server.url, "i") as two:
        (writer,) = await start_runs(one, 1)
        await writer.step()
        await one.release(writer.lease, RunWrite((event("r0", 3, "run.released"),)))
        taken = await two.claim("r0", "other", 600.0, 3)
        assert taken is not None
        second = Writer(two, taken)
        await second.step()
        await until(lambda: _is_mirrored(server, two, [second], after=3), 5)
        # What a runner that was stopped in between has still to send: tokens and an event of before.
        live_events(one).publish("r0", [event("r0", 2, "node.completed"), event("r0", 2, TOKEN, text="late")])
        one._tier.keep_state("r0", 2, status="running", owner="one")
        await until(lambda: not one._tier._outbox, 5)
        await asyncio.sleep(0.05)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.hget("parley:i:run:r0:state", "owner") == "other"
            assert client.hget("parley:i:run:r0:state", "last_seq") == "4"
            ids = [entry[0] for entry in client.xrange("parley:i:run:r0:events")]
        assert [i for i in ids if i.startswith("4-")] == ids[-len([i for i in ids if i.startswith("4-")]) :]
        assert ids[-1].startswith("4-")


def _listen_elsewhere(folder: str, url: str, instance: str, tell: Connection) -> None:
    async def main() -> None:
        async with mirrored(Path(folder), url, instance) as store:
            tell.send("ready")
            async for batch in live_events(store).subscribe("r0", 1):
                tell.send([(e.seq, e.type, e.data.get("text")) for e in batch])
                if batch[-1].type == "run.completed":
                    return

    asyncio.run(main())


async def test_tokens_reach_a_reader_in_another_process(
    redis_url: str, redis_instance: str, tmp_path: Path
) -> None:
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        with structlog.testing.capture_logs() as lines:
            first, last, got = await _relay(folder, redis_url, f"{redis_instance}:{number}")
        # A sending that takes too long is given up, and its tokens with it: they may be.
        if not any(line["event"] == "hot_tier_away" and line["side"] == "writes" for line in lines):
            break
    else:
        pytest.fail(f"in each of {TRIES} tries Redis took longer than {SEND_PATIENCE_S:g} s for a sending")
    durable = [seq for seq, type, _ in got if type != TOKEN]
    assert durable == list(range(durable[0], last + 1))
    texts = [(seq, text) for seq, type, text in got if type == TOKEN and seq >= first]
    wanted = [(seq, text) for seq in range(first, first + 50) for text in ("b", "a")][:-1]
    assert texts == wanted, "every token, in order"


async def _relay(
    folder: Path, redis_url: str, instance: str
) -> tuple[int, int, list[tuple[int, str, str | None]]]:
    """What another process hears of a run; the seq from which it surely follows, and the run's last one."""
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(
        target=_listen_elsewhere, args=(str(folder), redis_url, instance, theirs)
    )
    async with mirrored(folder, redis_url, instance) as store:
        try:
            (writer,) = await start_runs(store, 1)
            reader.start()
            assert await asyncio.to_thread(ours.recv) == "ready"
            got: list[tuple[int, str, str | None]] = []

            def arrived() -> bool:
                while ours.poll():
                    got.extend(ours.recv())
                return bool(got)

            # Until the first one comes, the other side may not follow yet.
            while not arrived():
                await writer.step()
                await asyncio.sleep(0.05)
            first = writer.seq + 1
            for _ in range(50):
                await writer.step()
                await asyncio.sleep(0.01)
            await writer.end()
            with suppress(TimeoutError):
                await until(lambda: arrived() and got[-1][1] == "run.completed", 10)
        finally:
            reader.join(10)
            reader.kill()
    return first, writer.seq, got


async def test_the_mirror_leaves_redis_by_itself(redis_url: str, redis_instance: str, tmp_path: Path) -> None:
    instance = redis_instance
    key = f"parley:{instance}:run:r0"
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with mirrored(tmp_path, redis_url, instance) as store:
            (writer,) = await start_runs(store, 1)
            await writer.step()
            await until(lambda: client.exists(f"{key}:events", f"{key}:state") == 2, 5)
            for name in ("events", "state"):
                assert 3500 < client.ttl(f"{key}:{name}") <= 3600
                client.expire(f"{key}:{name}", 100)
            renewer = store.open_renewer()
            await asyncio.to_thread(renewer.renew, [writer.lease], 600.0)
            renewer.close()
            await until(lambda: client.ttl(f"{key}:events") > 3500 and client.ttl(f"{key}:state") > 3500, 5)
            await writer.end()
            await until(lambda: client.hget(f"{key}:state", "status") == "completed", 5)
            await until(lambda: max(client.ttl(f"{key}:events"), client.ttl(f"{key}:state")) <= 60, 5)
            assert store._held == {}
            await store.release_orphans("a-new-start")
            assert client.keys(f"parley:{instance}:run:*") == []
