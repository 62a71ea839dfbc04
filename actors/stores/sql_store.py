"""A whole store over any database that speaks our SQL."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.stores import (
    acceptance,
    checkpoint_queries,
    claims,
    held_runs,
    idempotency,
    kept_calls,
    retention,
    run_queries,
    run_transitions,
    statistics,
)
from actors.stores.claims import Claimant
from actors.stores.database import Database, Transactor
from actors.stores.held_runs import prepare_write
from actors.stores.migrations import schema_version
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
    Renewal,
    RunFilter,
    RunWrite,
    StoreFacts,
    WriteRow,
)
from actors.stores.store import LeaseRenewer
from registries.contracts.config import RetentionConfig
from registries.contracts.generation import Message
from registries.contracts.runs import Decision, Feedback, RunEvent, RunResult, RunStatus, Waiting


class SqlStore:
    """See store.Store: each method is one function over one transaction of the database.

    ``on_ended`` hears of runs that the store itself ended, because they were too late, parked, or cancelled
    while nobody held them: no runner tells of those.
    """

    def __init__(
        self, database: Database, on_ended: Callable[[RunResult], None] = lambda result: None
    ) -> None:
        self._database = database
        self._on_ended = on_ended

    # -- runs come in and are taken

    async def accept(self, run: NewRun) -> Accepted:
        return await self._database.write(lambda tx: acceptance.accept(tx, run), run.order.run_id)

    async def known_run(self, tenant: str, key: IdempotencyKey) -> Accepted | None:
        return await self._database.read(lambda tx: idempotency.known_run(tx, tenant, key))

    async def claim(self, run: NewRun | str, owner: str, ttl_s: float, max_deaths: int) -> ClaimedRun | None:
        claimant = Claimant(owner, ttl_s, max_deaths)
        run_id = run if isinstance(run, str) else run.order.run_id
        claimed = await self._database.write(lambda tx: claims.claim(tx, run, claimant), run_id)
        self._tell(claimant.ended)
        return claimed

    async def claim_next(
        self, owner: str, ttl_s: float, max_deaths: int, limit: int
    ) -> builtins.list[ClaimedRun]:
        claimant = Claimant(owner, ttl_s, max_deaths)
        claimed = await self._database.write(lambda tx: claims.claim_next(tx, claimant, limit))
        self._tell(claimant.ended)
        return claimed

    def open_renewer(self) -> LeaseRenewer:
        return SqlLeaseRenewer(self._database.open_transactor())

    async def release_orphans(self, owner_prefix: str) -> int:
        def work(tx: Any) -> int:
            kept_calls.release_calls(tx, owner_prefix)
            return claims.release_orphans(tx, owner_prefix)

        return await self._database.write(work)

    # -- what the holder writes

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        rows = prepare_write(lease, write)
        await self._database.write(lambda tx: held_runs.commit(tx, lease, rows), lease.run_id)

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        rows = prepare_write(lease, write, f"run.{result.status}")
        stored = held_runs.prepare_result(result)
        await self._database.write(lambda tx: held_runs.finish(tx, lease, stored, rows), lease.run_id)

    async def wait(self, lease: Lease, waiting: Waiting, write: RunWrite) -> None:
        rows = prepare_write(lease, write, "run.waiting")
        await self._database.write(lambda tx: held_runs.wait(tx, lease, waiting, rows), lease.run_id)

    async def release(self, lease: Lease, write: RunWrite) -> None:
        rows = prepare_write(lease, write, "run.released")
        await self._database.write(lambda tx: held_runs.release(tx, lease, rows), lease.run_id)

    # -- what people ask

    async def cancel(self, run_id: str, tenant: str, key: IdempotencyKey | None = None) -> RunStatus:
        ended: builtins.list[RunResult] = []
        status = await self._database.write(
            lambda tx: run_transitions.cancel(tx, run_id, tenant, key, ended), run_id
        )
        self._tell(ended)
        return status

    async def resume(
        self,
        run_id: str,
        tenant: str,
        decision: Decision,
        deadline_s: float,
        key: IdempotencyKey | None = None,
    ) -> Accepted:
        return await self._database.write(
            lambda tx: run_transitions.resume(tx, run_id, tenant, decision, deadline_s, key), run_id
        )

    async def restart(
        self, run_id: str, tenant: str, deadline_s: float, key: IdempotencyKey | None = None
    ) -> Accepted:
        return await self._database.write(
            lambda tx: run_transitions.restart(tx, run_id, tenant, deadline_s, key), run_id
        )

    async def give_feedback(
        self, run_id: str, tenant: str, user: str, feedback: Feedback, key: IdempotencyKey | None = None
    ) -> None:
        await self._database.write(
            lambda tx: run_queries.add_feedback(tx, run_id, tenant, user, feedback, key), run_id
        )

    # -- what is read

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        return await self._database.read(lambda tx: run_queries.get_run(tx, run_id, tenant))

    async def list(self, tenant: str, filter: RunFilter) -> builtins.list[dict[str, Any]]:
        return await self._database.read(lambda tx: run_queries.list_runs(tx, tenant, filter))

    async def events(
        self, run_id: str, tenant: str, after: int = 0, limit: int = 10_000
    ) -> builtins.list[RunEvent]:
        return await self._database.read(
            lambda tx: run_queries.events_after(tx, run_id, tenant, after, limit)
        )

    async def tail(self, after: Mapping[str, int]) -> builtins.list[RunEvent]:
        return await self._database.read(lambda tx: run_queries.tail_events(tx, after))

    async def queue(self) -> QueueState:
        return await self._database.read(run_queries.queue_state)

    async def flow_spec(self, version: str) -> dict[str, Any] | None:
        return await self._database.read(lambda tx: run_queries.flow_spec(tx, version))

    async def history(self, conversation_id: str, tenant: str, limit: int) -> builtins.list[Message]:
        return await self._database.read(lambda tx: run_queries.history(tx, conversation_id, tenant, limit))

    async def statistics(
        self, since: float, until: float, tenant: str, user: str | None = None
    ) -> dict[str, Any]:
        return await self._database.read(lambda tx: statistics.statistics(tx, since, until, tenant, user))

    # -- graph states

    async def checkpoint(
        self, thread_id: str, ns: str, checkpoint_id: str | None = None
    ) -> tuple[CheckpointRow, builtins.list[WriteRow]] | None:
        return await self._database.read(
            lambda tx: checkpoint_queries.get_checkpoint(tx, thread_id, ns, checkpoint_id)
        )

    async def checkpoints(
        self,
        thread_id: str | None,
        ns: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[tuple[CheckpointRow, builtins.list[WriteRow]]]:
        return await self._database.read(
            lambda tx: checkpoint_queries.list_checkpoints(tx, thread_id, ns, before, limit)
        )

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        def work(tx: Any) -> None:
            checkpoint_queries.insert_checkpoints(tx, checkpoints)
            checkpoint_queries.insert_writes(tx, writes)

        await self._database.write(work)

    async def drop_threads(self, thread_ids: Sequence[str]) -> None:
        await self._database.write(lambda tx: checkpoint_queries.drop_threads(tx, thread_ids))

    async def drop_checkpoints(self, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
        await self._database.write(
            lambda tx: checkpoint_queries.drop_checkpoints(tx, thread_id, checkpoint_ids), thread_id
        )

    # -- keyed model calls: one key's writes keep their order

    async def claim_call(self, key: IdempotencyKey, claim: CallClaim) -> CallState:
        return await self._database.write(lambda tx: kept_calls.claim_call(tx, key, claim), claim.key)

    async def look_at_call(self, tenant: str, key: IdempotencyKey) -> CallState:
        return await self._database.read(lambda tx: kept_calls.look_at_call(tx, tenant, key))

    async def keep_answer(self, claim: CallClaim, answer: str) -> None:
        await self._database.write(lambda tx: kept_calls.keep_answer(tx, claim, answer), claim.key)

    async def give_up_call(self, claim: CallClaim) -> None:
        await self._database.write(lambda tx: kept_calls.give_up_call(tx, claim), claim.key)

    # -- upkeep

    async def prune(self, policy: RetentionConfig, limit: int = 500) -> Pruned:
        return await self._database.write(lambda tx: retention.prune(tx, policy, limit))

    async def turn(self, job: str, every_s: float, again_s: float | None = None) -> bool:
        return await self._database.write(lambda tx: retention.take_turn(tx, job, every_s, again_s))

    async def facts(self) -> StoreFacts:
        version = await self._database.read(schema_version)
        return StoreFacts(self._database.backend, version, await self._database.details())

    def _tell(self, ended: builtins.list[RunResult]) -> None:
        for result in ended:
            self._on_ended(result)

    async def close(self) -> None:
        await self._database.close()


class SqlLeaseRenewer:
    """See store.LeaseRenewer."""

    def __init__(self, transactor: Transactor) -> None:
        self._transactor = transactor

    def renew(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        """Blocking; raises StoreError."""
        return self._transactor.run(lambda tx: claims.renew(tx, leases, ttl_s))

    def close(self) -> None:
        """Let go of the connection; idempotent."""
        self._transactor.close()
