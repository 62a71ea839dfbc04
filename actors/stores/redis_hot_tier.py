"""Active runs and their live events in Redis: a mirror, never the truth."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import structlog
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from actors.stores.hot_tier_breaker import HotTierBreaker
from actors.stores.hot_tier_outbox import HotTierOutbox, RunNews
from actors.stores.redis_client import FAULTS, open_client
from actors.stores.redis_follower import RedisFollower
from actors.stores.redis_layout import FIELD, RedisKeys, decode, entries, entry_id, gapless
from registries.contracts.runs import RunEvent

TTL_S = 3600
"""Renewed with the lease: what nobody holds any more leaves by itself."""
ENDED_TTL_S = 60
"""For readers who are about to see the end."""
SEND_EVERY_S = 0.010
SEND_PATIENCE_S = 0.5
"""Nobody waits for a sending, so that it may take longer than a read that somebody waits for."""
READ_PATIENCE_S = 0.050
CLEAR_PATIENCE_S = 2.0
CLOSE_PATIENCE_S = 0.5
MAX_STREAM_ENTRIES = 2000
_READ_ENTRIES = 1000
_NOT_ABOVE = "equal or smaller"
_KEEP_STATE = """
local seen = tonumber(redis.call('HGET', KEYS[1], 'last_seq') or '0')
if tonumber(ARGV[1]) < seen then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
"""A process that comes late does not turn a run's state back: every change of it has a higher last_seq."""


class RedisHotTier:
    """Writes by one background task, in one pipeline every 10 ms at most; see LiveEvents for the promise.

    ``on_missing`` is told (on the event loop) of runs that this process holds and that Redis does not have:
    it was flushed, or it is back from a fault. ``held`` names all runs of this process. A failure of any
    kind is nobody's error: the breakers pause, and readers ask the database.
    """

    def __init__(
        self,
        url: str,
        instance: str,
        on_missing: Callable[[Sequence[str]], None] = lambda run_ids: None,
        held: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._keys = RedisKeys(instance, secrets.token_hex(8))
        self._on_missing = on_missing
        self._held = held
        self._writer = open_client(url, max_connections=2)
        self._reader = open_client(url, max_connections=64)
        self._follower = RedisFollower(url, self._keys)
        self._writes = HotTierBreaker("writes")
        self._reads = HotTierBreaker("reads")
        self._outbox = HotTierOutbox()
        self._touched: set[str] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_live(self) -> bool:
        """Whether events can be followed now."""
        return not self._follower.is_away

    @property
    def is_up(self) -> bool:
        """Whether nothing failed the last time."""
        return not (self._writes.is_open or self._reads.is_open or self._follower.is_away)

    # -- what the runs' process tells

    def publish(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Mirror events, durable ones after their commit; never waits."""
        if self._takes():
            self._outbox.add_events(run_id, events)
            self._news.set()

    def replace(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """Mirror committed events in the place of what Redis has of the run; never waits."""
        if self._takes() and events:
            self._outbox.replace(run_id, events)
            self._news.set()

    def keep_state(self, run_id: str, last_seq: int, **fields: str) -> None:
        """Mirror fields of a run's state as of its event ``last_seq``; never waits."""
        if self._takes():
            self._outbox.add_state(run_id, {"last_seq": str(last_seq), **fields})
            self._news.set()

    def touch(self, run_ids: Sequence[str]) -> None:
        """Their leases were renewed: so is their time in Redis."""
        if run_ids and not self._closed:
            self._touched.update(run_ids)
            self._start()
            self._news.set()

    # -- what readers ask

    def subscribe(self, run_id: str, after_seq: int) -> AsyncIterator[list[RunEvent]]:
        """See LiveEvents."""
        return self._follower.subscribe(run_id, after_seq)

    async def read(self, after: Mapping[str, int]) -> dict[str, list[RunEvent]]:
        """Committed events that follow ``after`` without a gap, where there are any; at most 50 ms."""
        if self._closed or not after or not self._reads.allows():
            return {}
        found: dict[str, list[RunEvent]] = {}
        try:
            async with asyncio.timeout(READ_PATIENCE_S), self._reader.pipeline(transaction=False) as pipe:
                for run_id, seq in after.items():
                    pipe.xrange(self._keys.events(run_id), min=f"{seq + 1}-0", count=_READ_ENTRIES)
                replies = await pipe.execute()
        except FAULTS as error:
            self._reads.fail(error)
            return {}
        self._reads.succeed()
        for (run_id, seq), reply in zip(after.items(), replies, strict=True):
            events = [decode(run_id, fields) for _, fields in entries(reply)]
            follows = gapless((event for event in events if event is not None), seq)
            if follows:
                found[run_id] = follows
        return found

    # -- its life

    async def clear(self) -> bool:
        """Remove every run of this runtime; whether it could be done within two seconds."""
        try:
            async with asyncio.timeout(CLEAR_PATIENCE_S):
                async for key in self._writer.scan_iter(match=self._keys.all_runs, count=1000):
                    await self._writer.unlink(key)
        except FAULTS as error:
            self._writes.fail(error)
            return False
        return True

    async def close(self) -> None:
        """Send what was handed in, if that goes at once, then let go; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._news.set()
            await asyncio.wait({self._task}, timeout=0 if self._writes.is_open else SEND_PATIENCE_S)
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._follower.close()
        await self._forget()
        for client in (self._writer, self._reader):
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(CLOSE_PATIENCE_S):
                    await client.aclose()

    async def _forget(self) -> None:
        if self._task is not None and not self._writes.is_open:
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(CLOSE_PATIENCE_S):
                    await self._writer.unlink(self._keys.known)

    def _takes(self) -> bool:
        self._start()
        # What happens while Redis is away is of no use to it later: the database fills it again.
        return not (self._closed or self._writes.is_open)

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._work(), name="hot-tier")

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if self._writes.is_open:
                    await self._probe()
                touched, self._touched = self._touched, set()
                missing = await self._send(self._outbox.take(), touched)
            except FAULTS as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - a dead mirror would never come back: it must go on
                structlog.get_logger("actors.stores").exception("hot_tier_failed")
                self._fail(error)
            else:
                if missing:
                    self._on_missing(missing)
                if self._closed:
                    return
                await asyncio.sleep(SEND_EVERY_S)

    def _fail(self, error: BaseException) -> None:
        self._writes.fail(error)
        self._outbox.clear()
        # Comes back by itself, also when no run tells anything meanwhile.
        self._news.set()

    async def _probe(self) -> None:
        """Wait for the pause, then write: a Redis that is full still answers PING."""
        await asyncio.sleep(self._writes.wait_s)
        async with asyncio.timeout(SEND_PATIENCE_S):
            await self._writer.set(self._keys.known, "1", ex=TTL_S)
        self._writes.succeed()
        self._on_missing(self._held())

    async def _send(self, news: Mapping[str, RunNews], touched: set[str]) -> Sequence[str]:
        """One pipeline; the runs of this process that Redis does not have any more. Raises FAULTS."""
        renewed = [run_id for run_id in touched if run_id not in news]
        if not news and not renewed:
            return ()
        async with asyncio.timeout(SEND_PATIENCE_S), self._writer.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.known, "1", ex=TTL_S, get=True)
            for run_id in renewed:
                pipe.expire(self._keys.state(run_id), TTL_S)
            for run_id in renewed:
                pipe.expire(self._keys.events(run_id), TTL_S)
            for run_id, run in news.items():
                self._add_run(pipe, run_id, run)
            replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not _is_late(reply):
                raise reply
        if replies[0] is None:
            return self._held()
        return [run_id for run_id, reply in zip(renewed, replies[1:], strict=False) if not reply]

    def _add_run(self, pipe: Pipeline, run_id: str, run: RunNews) -> None:
        ttl_s = ENDED_TTL_S if run.ended else TTL_S
        stream, state = self._keys.events(run_id), self._keys.state(run_id)
        if run.anew:
            pipe.unlink(stream)
        for seq, is_token, json in run.entries:
            pipe.xadd(stream, {FIELD: json}, id=entry_id(seq, is_token), maxlen=MAX_STREAM_ENTRIES)
        if run.entries:
            pipe.expire(stream, ttl_s)
        if run.state:
            fields = [part for pair in run.state.items() for part in pair]
            pipe.eval(_KEEP_STATE, 1, state, run.state["last_seq"], str(ttl_s), *fields)


def _is_late(reply: Exception) -> bool:
    return isinstance(reply, ResponseError) and _NOT_ABOVE in str(reply)
