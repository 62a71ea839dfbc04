"""What goes into a store and comes out of it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registries.contracts.runs import Decision, RunEvent, RunOrder, RunStatus


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one run. ``token`` rises with every claim: an older one writes nothing any more."""

    run_id: str
    token: int


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's key for one request, unique in its tenant. ``digest`` is over route and body."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class CallClaim:
    """The right to make one keyed model call, for ``ttl_s`` seconds. ``token`` is of this claim alone."""

    tenant: str
    key: str
    owner: str
    token: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class CallState:
    """A keyed model call: ``answered`` with its answer (JSON), ``held`` by somebody, or ``free``."""

    state: Literal["free", "held", "answered"]
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One checkpoint of one graph's state. ``data`` and ``metadata`` are serialised by the saver."""

    thread_id: str
    ns: str
    checkpoint_id: str
    parent_id: str | None
    type: str
    data: bytes
    metadata: bytes


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One write of a task towards the next checkpoint. A negative ``idx`` replaces, others stay as first."""

    thread_id: str
    ns: str
    checkpoint_id: str
    task_id: str
    idx: int
    channel: str
    type: str
    data: bytes
    task_path: str = ""


@dataclass(frozen=True, slots=True)
class RunWrite:
    """What one commit of a running run holds: events and the state that they tell of."""

    events: tuple[RunEvent, ...] = ()
    checkpoints: tuple[CheckpointRow, ...] = ()
    writes: tuple[WriteRow, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.events or self.checkpoints or self.writes)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to accept. ``flow_spec`` (FlowSpec as JSON) is kept once a version, for runs pinned to it.

    ``parent`` and ``checkpoints`` are a fork's: the run it came from, and the state it begins with.
    """

    order: RunOrder
    flow_version: str
    flow_spec: Mapping[str, Any]
    key: IdempotencyKey | None = None
    parent: str | None = None
    checkpoints: tuple[CheckpointRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run that stands for a request. ``created`` is False when its key had made it before."""

    run_id: str
    status: RunStatus
    created: bool
    last_seq: int = 1


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that this process now holds.

    ``order.deadline_s`` is what remains, ``order.attempt`` counts claims, ``flow_spec`` is the version that
    the run is pinned to, ``queued_s`` how long it waited. ``decision`` answers the question that the run
    waited with; ``parent`` is the run that it was forked from; ``taken_over`` says that its last owner died.
    """

    order: RunOrder
    flow_version: str
    flow_spec: Mapping[str, Any]
    lease: Lease
    last_seq: int
    queued_s: float = 0.0
    decision: Decision | None = None
    parent: str | None = None
    taken_over: bool = False

    @property
    def is_new(self) -> bool:
        """Whether no state of it can have been committed before."""
        return self.order.attempt == 1 and self.parent is None


@dataclass(frozen=True, slots=True)
class Renewal:
    """After a renewal: the leases still held, and of those the runs that somebody wants cancelled."""

    held: frozenset[Lease]
    cancelled: frozenset[str]


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None means any. ``before`` is the run_id that the last page ended with."""

    statuses: tuple[RunStatus, ...] = ()
    flow: str | None = None
    user: str | None = None
    conversation_id: str | None = None
    parent: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class QueueState:
    """Runs by open state, and the age of the oldest queued one in seconds."""

    queued: int = 0
    running: int = 0
    waiting: int = 0
    oldest_queued_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a retention pass removed."""

    runs: int = 0
    checkpoints: int = 0
    answers: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs or self.checkpoints or self.answers)

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            self.runs + other.runs, self.checkpoints + other.checkpoints, self.answers + other.answers
        )


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store about itself, for /api/system and doctor."""

    backend: str
    schema_version: int
    details: Mapping[str, Any] = field(default_factory=dict)
