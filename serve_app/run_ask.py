"""What a route asks RunDispatch for, and what it gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.stores.records import CheckpointRow, IdempotencyKey
from registries.contracts.runs import RunOrder, RunRequest
from registries.specs import FlowSpec
from serve_app.caller import Caller
from serve_app.live_run import LiveRun


@dataclass(frozen=True, slots=True)
class Fork:
    """Which run a new one comes from, in which flow, and how its first state is made."""

    parent: str
    flow: FlowSpec
    state: Callable[[RunOrder], Awaitable[tuple[CheckpointRow, ...]]]


@dataclass(frozen=True, slots=True)
class RunAsk:
    """A run to be made."""

    request: RunRequest
    request_id: str
    traceparent: str | None = None
    key: IdempotencyKey | None = None
    caller: Caller = field(default_factory=Caller)
    fork: Fork | None = None

    @property
    def cancels(self) -> bool:
        """Whether the run ends with its last client."""
        return self.request.on_disconnect == "cancel"


class Attended(NamedTuple):
    """A run that a client waits for; ``replayed`` when an earlier request had made it."""

    live: LiveRun
    replayed: bool
