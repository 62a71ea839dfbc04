"""What a database of runs must do."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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
from registries.contracts.config import RetentionConfig
from registries.contracts.generation import Message
from registries.contracts.runs import Decision, Feedback, RunEvent, RunResult, RunStatus, Waiting


class LeaseRenewer(Protocol):
    """Renews leases from a thread of its own, over a connection of its own: node code cannot hold it up."""

    def renew(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        """Extend what is still held, by the database's clock. Blocking. Raises StoreError."""
        ...

    def close(self) -> None:
        """Let go of the connection; idempotent."""
        ...


class RunStore(Protocol):
    """Runs, their queue, leases and durable events; accepted means committed.

    Each method is one transaction. Every method raises StoreError (StoreFull when the disk is full) when the
    database cannot be reached or written; nothing is then acknowledged and nothing half-written. Several
    processes may use one database at once. Every change of a run's status writes its event in the same
    transaction, with the run's next seq: seqs are gapless from 1 (``run.queued``). But for a claim: its
    ``run.started`` is the holder's first event, and comes with the holder's first commit.
    """

    async def accept(self, run: NewRun) -> Accepted:
        """Write the run as ``queued`` with its ``run.queued`` event.

        With a key that has been seen: the run that it made, nothing written; KeyReused when the digest
        differs. Conflict for a run_id that exists (without a key).
        """
        ...

    async def known_run(self, tenant: str, key: IdempotencyKey) -> Accepted | None:
        """The run that this key has made, or changed; None for one that is unseen. KeyReused."""
        ...

    async def claim(self, run: NewRun | str, owner: str, ttl_s: float, max_deaths: int) -> ClaimedRun | None:
        """Take one run: a queued one, or a running one whose lease ran out; a NewRun is accepted first.

        None when it does not exist, is held, waits or has ended, and when its key made another run. A run
        taken from another owner counts a death (its own it may take again, after an outage); one with
        ``max_deaths`` of them is parked instead: ``failed`` with error code "runner_died" naming the node
        that was under way, None returned.
        """
        ...

    async def claim_next(self, owner: str, ttl_s: float, max_deaths: int, limit: int) -> list[ClaimedRun]:
        """Take up to ``limit`` runs: those of dead owners first, then queued ones.

        Queued ones by priority, then by acceptance. Never waits for another process that claims at the same
        time. Runs whose deadline has passed while queued are ended as ``failed`` (budget_exceeded,
        param deadline_s) and not returned. Parks as ``claim`` does.
        """
        ...

    def open_renewer(self) -> LeaseRenewer:
        """A renewer; the caller closes it."""
        ...

    async def commit(self, lease: Lease, write: RunWrite) -> None:
        """Events, checkpoints and task writes of a held run in one commit; LeaseLost when it is not held."""
        ...

    async def finish(self, lease: Lease, result: RunResult, write: RunWrite) -> None:
        """The terminal state, the result, its usage rows and the last events in one commit; LeaseLost."""
        ...

    async def wait(self, lease: Lease, waiting: Waiting, write: RunWrite) -> None:
        """running → waiting: the lease is given back, no runner is held; LeaseLost."""
        ...

    async def release(self, lease: Lease, write: RunWrite) -> None:
        """running → queued, handing the run over (a runner that drains); no death is counted; LeaseLost."""
        ...

    async def release_orphans(self, owner_prefix: str) -> int:
        """Give back the leases of every owner that does not start with ``owner_prefix``; how many runs'.

        Called once when a runtime starts: their processes are known to be gone. No death is counted.
        """
        ...

    async def cancel(self, run_id: str, tenant: str, key: IdempotencyKey | None = None) -> RunStatus:
        """Ask for the end: queued and waiting runs are ``cancelled`` at once, a running one is marked.

        The status after it. NotFound; Conflict for a run that completed or failed.
        """
        ...

    async def resume(
        self,
        run_id: str,
        tenant: str,
        decision: Decision,
        deadline_s: float,
        key: IdempotencyKey | None = None,
    ) -> Accepted:
        """waiting → queued with the decision and a new deadline. NotFound; Conflict when it does not wait."""
        ...

    async def restart(
        self, run_id: str, tenant: str, deadline_s: float, key: IdempotencyKey | None = None
    ) -> Accepted:
        """failed → queued, to go on after its last committed step; deaths are forgotten.

        NotFound; ValidationError (param run_id) when the run is not failed.
        """
        ...

    async def give_feedback(
        self, run_id: str, tenant: str, user: str, feedback: Feedback, key: IdempotencyKey | None = None
    ) -> None:
        """Keep a user's rating; a later one by the same user replaces it. NotFound.

        A rating whose key has been seen is kept already, or was replaced since: nothing is written.
        """
        ...

    async def get(self, run_id: str, tenant: str) -> dict[str, Any] | None:
        """The run as JSON values; None for another tenant's too.

        Keys: run_id, status, flow, flow_version, priority, user, request_id, conversation_id, parent,
        attempts, deaths, owner, created_at, started_at, finished_at, deadline_at, cancel_requested, last_seq,
        request, result, waiting, feedback (list of {user, rating, comment, created_at}). Times in seconds
        since the epoch.
        """
        ...

    async def list(self, tenant: str, filter: RunFilter) -> list[dict[str, Any]]:
        """Newest first, at most ``filter.limit``; as ``get`` without request's input and result's nodes.

        Nor feedback; instead: ``prompt`` (its first 200 characters), ``answer`` (likewise), ``usage``,
        ``error``.
        """
        ...

    async def events(
        self, run_id: str, tenant: str, after: int = 0, limit: int = 10_000
    ) -> builtins.list[RunEvent]:
        """Durable events with seq > after, in order."""
        ...

    async def tail(self, after: Mapping[str, int]) -> builtins.list[RunEvent]:
        """New events of many runs (run_id → last seq seen) in one query, each run's in order."""
        ...

    async def queue(self) -> QueueState:
        """Open runs of all tenants."""
        ...

    async def flow_spec(self, version: str) -> dict[str, Any] | None:
        """The flow (FlowSpec as JSON) that runs of this version are pinned to; None when it is not kept."""
        ...

    async def history(self, conversation_id: str, tenant: str, limit: int) -> builtins.list[Message]:
        """The last ``limit`` questions and answers of the conversation's completed runs, newest last."""
        ...


class CheckpointStore(Protocol):
    """Graph states, by thread (a run's id). Writes of held runs go through RunStore.commit."""

    async def checkpoint(
        self, thread_id: str, ns: str, checkpoint_id: str | None = None
    ) -> tuple[CheckpointRow, list[WriteRow]] | None:
        """That checkpoint, or the newest, with its task writes by (task_id, idx)."""
        ...

    async def checkpoints(
        self,
        thread_id: str | None,
        ns: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[CheckpointRow, list[WriteRow]]]:
        """Newest first; ``before`` is a checkpoint_id."""
        ...

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Write without a lease: tools and tests; a checkpoint that exists is replaced."""
        ...

    async def drop_threads(self, thread_ids: Sequence[str]) -> None:
        """Remove all checkpoints and writes of these threads."""
        ...

    async def drop_checkpoints(self, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
        """Remove these checkpoints of a thread, in every namespace, with their writes."""
        ...


class CallStore(Protocol):
    """Keyed model calls: each is made by one process at a time, and its answer kept.

    Their keys are the same as those of runs: one namespace a tenant. Raises as RunStore does.
    """

    async def claim_call(self, key: IdempotencyKey, claim: CallClaim) -> CallState:
        """``free``: the caller holds it from now on. Else nothing was written.

        Free are a key that is unseen, one whose holder's lease ran out by the database's clock, and one that
        the same owner holds. KeyReused when its digest differs, or it made a run.
        """
        ...

    async def look_at_call(self, tenant: str, key: IdempotencyKey) -> CallState:
        """How it is with it, nothing written; KeyReused."""
        ...

    async def keep_answer(self, claim: CallClaim, answer: str) -> None:
        """The end of a held call: its answer is what the key stands for; LeaseLost when it is not held."""
        ...

    async def give_up_call(self, claim: CallClaim) -> None:
        """A held call has no answer: its key is unseen again. Nothing happens when it is not held."""
        ...


class Store(RunStore, CheckpointStore, CallStore, Protocol):
    """A whole backend."""

    async def statistics(
        self, since: float, until: float, tenant: str, user: str | None = None
    ) -> dict[str, Any]:
        """Figures of the runs created in [since, until); see actors.stores.statistics."""
        ...

    async def prune(self, policy: RetentionConfig, limit: int = 500) -> Pruned:
        """Remove at most ``limit`` ended runs, their states, and answers that the policy no longer keeps."""
        ...

    async def turn(self, job: str, every_s: float, again_s: float | None = None) -> bool:
        """Whether it is this caller's turn for a job that the whole runtime does once in ``every_s``.

        ``again_s``: somebody's turn again so much later, should this caller not live to take it anew, with 0
        for ``every_s``, when the job is done.
        """
        ...

    async def facts(self) -> StoreFacts:
        """Backend, schema version, sizes."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then let go; idempotent."""
        ...
