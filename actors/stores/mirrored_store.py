"""A database of runs with Redis in front of it: what is active is also there, for speed and for others."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.stores.live_events import LiveEvents
from actors.stores.records import (
    Accepted,
    CallClaim,
    CallState,
    CheckpointRow,
    ClaimedRun,
    IdempotencyKey,
    Lease,
    NewRun,
    Pruned,
    QueueState,
    RunFilter,
    RunWrite,
    StoreFacts,
    WriteRow,
)
from actors.stores.redis_hot_tier import MAX_STREAM_ENTRIES, RedisHotTier
from actors.stores.store import LeaseRenewer, Store
from actors.stores.touching_renewer import TouchingRenewer
from registries.contracts.config import RetentionConfig
from registries.contracts.errors import LeaseLost, ParleyError, StoreError
from registries.contracts.generation import Message
from registries.contracts.runs import Decision, Feedback, RunEvent, RunResult, RunStatus, Waiting

_RELOADED_EVENTS = MAX_STREAM_ENTRIES // 2
_RELOAD_AGAIN_S = 1.0


@dataclass(slots=True)
class _Held:
    """A run that this process holds; ``last_seq`` is committed.

    ``until`` (the loop's clock) is when its lease runs out: an attempt that ends without an end of its own
    is told of by nobody, it is only renewed no more.
    """

    tenant: str
    owner: str
    lease: Lease
    last_seq: int
    until: float


class MirroredStore:
    """Store over any other one. Every change and every answer of state is the database's.

    After its commit a change is handed to the mirror, which nobody waits for. ``tail`` takes from the mirror
    what follows without a gap (it is there only because it was committed) and asks the database for every
    run of which the mirror shows nothing new. ``get``, ``list`` and ``events`` are always the database's: a
    mirror cannot know that it lacks nothing, and to ask the database that costs as much as the answer.
    Made on the event loop that it is used on.
    """

    def __init__(self, database: Store, url: str, instance: str) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, _Held] = {}
        self._lost: set[str] = set()
        self._reload = asyncio.Event()
        self._reloader: asyncio.Task[None] | None = None
        self._tier = RedisHotTier(url, instance, on_missing=self._on_missing, held=self._held_now)

    @property
    def live(self) -> LiveEvents:
        """What carries live events between processes."""
        return self._tier

    def touch(self, run_ids: Sequence[str]) -> None:
        """Give these runs their time in Redis anew; ``open_renewer`` does it with every renewal."""
        self._tier.touch(run_ids)

    # -- runs: committed first, then mirrored

    async def accept(self, run: NewRun) -> Accepted:
        """See RunStore."""
        accepted = await self._database.accept(run)
        if accepted.created:
            self._tier.keep_state(
                accepted.run_id, accepted.last_seq, status=accepted.status, tenant=run.order.tenant
            )
        return accepted

    async def known_run(self, tenant: str, key: IdempotencyKey) -> Accepted | None:
        """See RunStore."""
        return await self._database.known_run(tenant, key)

    async def claim(self, run: NewRun | str, owner: str, ttl_s: float, max_deaths: int) -> ClaimedRun | None:
        """See RunStore."""
        claimed = await self._database.claim(run, owner, ttl_s, max_deaths)
        if claimed is not None:
            self._hold(claimed, owner, ttl_s)
        return claimed

    async def claim_next(
        self, owner: str, ttl_s: float, max_deaths: int, limit: int
    ) -> builtins.list[ClaimedRun]:
        """See RunStore."""
        claimed = await self._database.claim_next(owner, ttl_s, max_deaths, limit)
        for run in claimed:
            self._hold(run, owner, ttl_s)
        return claimed

    def open_renewer(self) -> LeaseRenewer:
        """See RunStore; what it renews is renewed in Redis too."""
        return TouchingRenewer(self._database.open_renewer(), self._renewed, self._loop)

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        """See RunStore."""
        with self._unless_lost(lease):
            await self._database.commit(lease, write)
        self._mirror(lease, write)

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        """See RunStore."""
        with self._unless_lost(lease):
            await self._database.finish(lease, result, write)
        self._mirror(lease, write)
        self._let_go(lease)

    async def wait(self, lease: Lease, waiting: Waiting, write: RunWrite) -> None:
        """See RunStore."""
        with self._unless_lost(lease):
            await self._database.wait(lease, waiting, write)
        self._mirror(lease, write)
        self._let_go(lease)

    async def release(self, lease: Lease, write: RunWrite) -> None:
        """See RunStore."""
        with self._unless_lost(lease):
            await self._database.release(lease, write)
        self._mirror(lease, write)
        self._let_go(lease)

    async def release_orphans(self, owner_prefix: str) -> int:
        """See RunStore. A runtime starts: a mirror of before, perhaps of a database restored since, goes."""
        released = await self._database.release_orphans(owner_prefix)
        await self._tier.clear()
        return released

    async def cancel(self, run_id: str, tenant: str, key: IdempotencyKey | None = None) -> RunStatus:
        """See RunStore."""
        status = await self._database.cancel(run_id, tenant, key)
        if status == "cancelled":
            await self._show_last_event(run_id, tenant)
        return status

    async def resume(
        self,
        run_id: str,
        tenant: str,
        decision: Decision,
        deadline_s: float,
        key: IdempotencyKey | None = None,
    ) -> Accepted:
        """See RunStore."""
        accepted = await self._database.resume(run_id, tenant, decision, deadline_s, key)
        await self._show_last_event(run_id, tenant)
        return accepted

    async def restart(
        self, run_id: str, tenant: str, deadline_s: float, key: IdempotencyKey | None = None
    ) -> Accepted:
        """See RunStore."""
        accepted = await self._database.restart(run_id, tenant, deadline_s, key)
        await self._show_last_event(run_id, tenant)
        return accepted

    async def tail(self, after: Mapping[str, int]) -> builtins.list[RunEvent]:
        """See RunStore; a run's newest events may come with the next call."""
        found = await self._tier.read(after)
        events = [event for run_id in after for event in found.get(run_id, ())]
        others = {run_id: seq for run_id, seq in after.items() if run_id not in found}
        return [*events, *await self._database.tail(others)] if others else events

    # -- answered by the database

    async def give_feedback(
        self, run_id: str, tenant: str, user: str, feedback: Feedback, key: IdempotencyKey | None = None
    ) -> None:
        """See RunStore."""
        await self._database.give_feedback(run_id, tenant, user, feedback, key)

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        """See RunStore."""
        return await self._database.get(run_id, tenant)

    async def list(self, tenant: str, filter: RunFilter) -> builtins.list[dict[str, Any]]:
        """See RunStore."""
        return await self._database.list(tenant, filter)

    async def events(
        self, run_id: str, tenant: str, after: int = 0, limit: int = 10_000
    ) -> builtins.list[RunEvent]:
        """See RunStore."""
        return await self._database.events(run_id, tenant, after, limit)

    async def queue(self) -> QueueState:
        """See RunStore."""
        return await self._database.queue()

    async def flow_spec(self, version: str) -> dict[str, Any] | None:
        """See RunStore."""
        return await self._database.flow_spec(version)

    async def history(self, conversation_id: str, tenant: str, limit: int) -> builtins.list[Message]:
        """See RunStore."""
        return await self._database.history(conversation_id, tenant, limit)

    async def checkpoint(
        self, thread_id: str, ns: str, checkpoint_id: str | None = None
    ) -> tuple[CheckpointRow, builtins.list[WriteRow]] | None:
        """See CheckpointStore."""
        return await self._database.checkpoint(thread_id, ns, checkpoint_id)

    async def checkpoints(
        self,
        thread_id: str | None,
        ns: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[tuple[CheckpointRow, builtins.list[WriteRow]]]:
        """See CheckpointStore."""
        return await self._database.checkpoints(thread_id, ns, before, limit)

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """See CheckpointStore."""
        await self._database.keep(checkpoints, writes)

    async def drop_threads(self, thread_ids: Sequence[str]) -> None:
        """See CheckpointStore."""
        await self._database.drop_threads(thread_ids)

    async def drop_checkpoints(self, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
        """See CheckpointStore."""
        await self._database.drop_checkpoints(thread_id, checkpoint_ids)

    async def claim_call(self, key: IdempotencyKey, claim: CallClaim) -> CallState:
        """See CallStore."""
        return await self._database.claim_call(key, claim)

    async def look_at_call(self, tenant: str, key: IdempotencyKey) -> CallState:
        """See CallStore."""
        return await self._database.look_at_call(tenant, key)

    async def keep_answer(self, claim: CallClaim, answer: str) -> None:
        """See CallStore."""
        await self._database.keep_answer(claim, answer)

    async def give_up_call(self, claim: CallClaim) -> None:
        """See CallStore."""
        await self._database.give_up_call(claim)

    async def statistics(
        self, since: float, until: float, tenant: str, user: str | None = None
    ) -> dict[str, Any]:
        """See Store."""
        return await self._database.statistics(since, until, tenant, user)

    async def prune(self, policy: RetentionConfig, limit: int = 500) -> Pruned:
        """See Store."""
        return await self._database.prune(policy, limit)

    async def turn(self, job: str, every_s: float, again_s: float | None = None) -> bool:
        """See Store."""
        return await self._database.turn(job, every_s, again_s)

    async def facts(self) -> StoreFacts:
        """The database's, and whether the hot tier answers."""
        facts = await self._database.facts()
        tier = {"state": "up" if self._tier.is_up else "away", "held_runs": len(self._held_now())}
        return replace(facts, details={**facts.details, "hot_tier": tier})

    async def close(self) -> None:
        """Finish what was handed in, then let go of both; idempotent."""
        if self._reloader is not None:
            self._reloader.cancel()
            await asyncio.wait({self._reloader})
        await self._tier.close()
        await self._database.close()

    # -- the mirror

    def _hold(self, claimed: ClaimedRun, owner: str, ttl_s: float) -> None:
        order = claimed.order
        until = self._loop.time() + ttl_s
        self._held[order.run_id] = _Held(order.tenant, owner, claimed.lease, claimed.last_seq, until)
        self._tier.keep_state(
            order.run_id, claimed.last_seq, status="running", owner=owner, tenant=order.tenant, waiting=""
        )

    def _held_now(self) -> tuple[str, ...]:
        now = self._loop.time()
        for run_id in [run_id for run_id, held in self._held.items() if held.until < now]:
            del self._held[run_id]
        return tuple(self._held)

    def _renewed(self, asked: Sequence[Lease], held: frozenset[Lease], ttl_s: float) -> None:
        until = self._loop.time() + ttl_s
        for lease in asked:
            if lease not in held:
                self._let_go(lease)
            elif (ours := self._held.get(lease.run_id)) is not None and ours.lease == lease:
                ours.until = until
        self._tier.touch([lease.run_id for lease in held])

    def _let_go(self, lease: Lease) -> None:
        held = self._held.get(lease.run_id)
        if held is not None and held.lease == lease:
            del self._held[lease.run_id]

    @contextlib.contextmanager
    def _unless_lost(self, lease: Lease) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            self._let_go(lease)
            raise

    def _mirror(self, lease: Lease, write: RunWrite) -> None:
        if not write.events:
            return
        held = self._held.get(lease.run_id)
        if held is not None and held.lease == lease:
            held.last_seq = write.events[-1].seq
        self._tier.publish(lease.run_id, write.events)

    async def _show_last_event(self, run_id: str, tenant: str) -> None:
        """A change that the database made by itself; readers who miss it ask for it."""
        with contextlib.suppress(ParleyError):
            run = await self._database.get(run_id, tenant)
            if run is not None:
                after = run["last_seq"] - 1
                self._tier.publish(run_id, await self._database.events(run_id, tenant, after, 10))

    def _on_missing(self, run_ids: Sequence[str]) -> None:
        self._lost.update(set(run_ids).intersection(self._held_now()))
        if not self._lost:
            return
        self._reload.set()
        if self._reloader is None:
            self._reloader = asyncio.create_task(self._fill_again(), name="hot-tier-reload")

    async def _fill_again(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            for run_id in tuple(self._lost):
                try:
                    await self._fill(run_id)
                except StoreError:
                    # The mirror can wait until the database is back.
                    await asyncio.sleep(_RELOAD_AGAIN_S)
                    self._reload.set()
                else:
                    self._lost.discard(run_id)

    async def _fill(self, run_id: str) -> None:
        while (held := self._held.get(run_id)) is not None:
            after = max(0, held.last_seq - _RELOADED_EVENTS)
            events = await self._database.events(run_id, held.tenant, after)
            # Handed over in this very step of the loop: nothing that was committed since can be left out.
            if events and events[-1].seq >= held.last_seq:
                self._tier.replace(run_id, events)
                self._tier.keep_state(
                    run_id, events[-1].seq, status="running", owner=held.owner, tenant=held.tenant, waiting=""
                )
                return
