"""Follows the runs that readers of this process want, over one connection to Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import structlog

from actors.stores.hot_tier_breaker import HotTierBreaker
from actors.stores.redis_client import FAULTS, open_client
from actors.stores.redis_layout import EntryId, RedisKeys, decode, entries, position
from registries.contracts.runs import TOKEN_EVENT, RunEvent

BLOCK_S = 0.25
"""A new reader interrupts the wait; this is its bound should that get lost."""
ANSWER_S = 1.0
MAX_BEHIND_EVENTS = 1000
_COUNT = 500
_LAST_ENTRY = 2**64 - 1


class _Subscription:
    """One reader: what it has not taken yet, and where in the stream it is (None: not known yet)."""

    def __init__(self, run_id: str, after_seq: int) -> None:
        self.run_id = run_id
        self.after_seq = after_seq
        self.position: EntryId | None = None
        self.news = asyncio.Event()
        self._backlog: deque[RunEvent] = deque(maxlen=MAX_BEHIND_EVENTS)

    def push(self, found: list[tuple[EntryId, dict[bytes, bytes]]]) -> None:
        """Take the entries after its position."""
        for at, fields in found:
            if self.position is not None and at <= self.position:
                continue
            self.position = at
            event = decode(self.run_id, fields)
            if event is not None and (event.type == TOKEN_EVENT or event.seq > self.after_seq):
                self._backlog.append(event)
                self.news.set()

    def take(self) -> list[RunEvent]:
        """All that it has, once."""
        self.news.clear()
        batch = list(self._backlog)
        self._backlog.clear()
        return batch


class RedisFollower:
    """One XREAD for all followed runs of a process; it goes on by itself after a fault."""

    def __init__(self, url: str, keys: RedisKeys) -> None:
        self._keys = keys
        self._client = open_client(url, max_connections=1)
        self._caller = open_client(url, max_connections=16)
        self._breaker = HotTierBreaker("following")
        self._subscriptions: set[_Subscription] = set()
        self._wanted = asyncio.Event()
        self._connection_id: int | None = None
        self._waits = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_away(self) -> bool:
        """Whether somebody follows and the last try failed."""
        return bool(self._subscriptions) and self._breaker.is_open

    async def subscribe(self, run_id: str, after_seq: int) -> AsyncIterator[list[RunEvent]]:
        """See LiveEvents.subscribe."""
        if self._closed:
            return
        subscription = _Subscription(run_id, after_seq)
        self._subscriptions.add(subscription)
        self._wanted.set()
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="hot-tier-follower")
        try:
            await self._interrupt()
            while True:
                await subscription.news.wait()
                batch = subscription.take()
                if batch:
                    yield batch
                if self._closed:
                    return
        finally:
            self._subscriptions.discard(subscription)

    async def close(self) -> None:
        """End all subscriptions and let go; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for subscription in self._subscriptions:
            subscription.news.set()
        for client in (self._client, self._caller):
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(ANSWER_S):
                    await client.aclose()

    async def _interrupt(self) -> None:
        """Make the waiting XREAD return, so that it begins again with the new run among its streams."""
        if not self._waits or self._connection_id is None:
            return
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(BLOCK_S):
                await self._caller.client_unblock(self._connection_id)

    async def _follow(self) -> None:
        while True:
            if not self._subscriptions:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                async with asyncio.timeout(BLOCK_S + ANSWER_S):
                    if self._connection_id is None:
                        self._connection_id = int(await self._client.client_id())
                    await self._begin([s for s in self._subscriptions if s.position is None])
                    await self._read()
            except FAULTS as error:
                await self._pause(error)
            except Exception as error:  # noqa: BLE001 - its readers would wait for ever: it must go on
                structlog.get_logger("actors.stores").exception("hot_tier_follower_failed")
                await self._pause(error)
            else:
                self._breaker.succeed()

    async def _pause(self, error: BaseException) -> None:
        self._connection_id = None
        self._breaker.fail(error)
        await asyncio.sleep(self._breaker.wait_s)

    async def _begin(self, fresh: list[_Subscription]) -> None:
        """Give new readers what there is after their seq; they go on from there."""
        if not fresh:
            return
        async with self._client.pipeline(transaction=True) as pipe:
            for subscription in fresh:
                stream = self._keys.events(subscription.run_id)
                pipe.xrevrange(stream, count=1)
                pipe.xrange(stream, min=f"{subscription.after_seq + 1}-0", count=MAX_BEHIND_EVENTS)
            replies = await pipe.execute()
        for subscription, last, found in zip(fresh, replies[::2], replies[1::2], strict=True):
            # Tokens of a node that goes on come from now on only: a reader that returns had the others.
            newest = position(last[0][0]) if last else (0, 0)
            subscription.push(entries(found))
            if subscription.position is None:
                # In a stream that was empty the first entry of a seq is its first token, not its event.
                subscription.position = max(newest, (subscription.after_seq - 1, _LAST_ENTRY))

    async def _read(self) -> None:
        """Wait for news of all followed runs at once."""
        positions: dict[str, EntryId] = {}
        for subscription in self._subscriptions:
            if subscription.position is not None:
                at = positions.get(subscription.run_id, subscription.position)
                positions[subscription.run_id] = min(at, subscription.position)
        if not positions:
            return
        streams: dict[Any, Any] = {
            self._keys.events(run_id): f"{seq}-{number}" for run_id, (seq, number) in positions.items()
        }
        run_of = {self._keys.events(run_id).encode(): run_id for run_id in positions}
        self._waits = True
        try:
            reply: Any = await self._client.xread(streams, count=_COUNT, block=round(BLOCK_S * 1000))
        finally:
            self._waits = False
        news = {run_of[stream]: entries(raw) for stream, raw in reply or ()}
        for subscription in self._subscriptions:
            if subscription.position is not None and subscription.run_id in news:
                subscription.push(news[subscription.run_id])
