"""A runner that tells a story: it claims and writes in the real store as FlowRunner does, without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from actors.stores.records import ClaimedRun, NewRun, RunWrite
from actors.stores.store import Store
from registries.contracts.errors import Conflict
from registries.contracts.runs import (
    TERMINAL_EVENTS,
    ErrorFact,
    NodeResult,
    RunEvent,
    RunOrder,
    RunResult,
    Waiting,
)
from registries.loader import load_catalog

CATALOG = load_catalog()
Step = tuple[str, str | None, dict[str, Any]]
Story = Callable[[RunOrder], Sequence[list[Step] | RunResult]]


def run_result(order: RunOrder, **values: Any) -> RunResult:
    """How the plain story ends."""
    flow = CATALOG.flows.get(order.request.flow_type)
    facts: dict[str, Any] = {"status": "completed", "answer": "85", "request_id": order.request_id}
    return RunResult(run_id=order.run_id, flow=flow.name, flow_version=flow.version, **{**facts, **values})


def node_step(node: str, text: str = "85") -> Step:
    """A node that ended well."""
    ended = NodeResult(id=node, role=node, status="completed", text=text)
    return ("node.completed", node, ended.model_dump(mode="json"))


def plain_story(order: RunOrder) -> Sequence[list[Step] | RunResult]:
    """One node, one token: durable events 1 (queued) to 5 (completed)."""
    return [
        [("node.started", "creator", {})],
        [("node.token", "creator", {"text": "85"})],
        [node_step("creator")],
        run_result(order),
    ]


def waiting_story(order: RunOrder) -> Sequence[list[Step] | RunResult]:
    """It asks a human first, and ends when it has the answer."""
    if order.attempt > 1:
        return [run_result(order, answer="approved")]
    waiting = Waiting(node="approval", interrupt_id="i-1", text="85", question="Send it?")
    return [
        [("node.started", "approval", {})],
        run_result(order, status="waiting", answer="", waiting=waiting),
    ]


def failed_story(order: RunOrder) -> Sequence[list[Step] | RunResult]:
    """It fails the first time."""
    if order.attempt > 1:
        return [run_result(order, answer="at last")]
    failure = ErrorFact(code="provider_error", message="gone", retryable=True, fault="timeout")
    return [[node_step("creator")], run_result(order, status="failed", answer="", error=failure)]


@dataclass
class ScriptedRunner:
    """Tells ``story``. The next of ``errors`` is raised in its place, or after ``lost_after`` batches.

    With a ``gate`` it stops after the first batch until that opens. A run whose runner was lost stays
    claimed; ``take_over`` is another runner that goes on with it.
    """

    store: Store
    story: Story = plain_story
    errors: list[Exception] = field(default_factory=list)
    lost_after: int = 0
    gate: asyncio.Event | None = None
    asked: list[RunOrder | str] = field(default_factory=list)
    orders: list[RunOrder] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    woken: int = 0
    left: int = 0
    works_when_woken: bool = False
    held: dict[str, ClaimedRun] = field(default_factory=dict)
    _stops: dict[str, asyncio.Event] = field(default_factory=dict)

    async def run(self, asked: RunOrder | str) -> AsyncIterator[Sequence[RunEvent]]:
        """See serve_app.run_ports.Runner."""
        self.asked.append(asked)
        error = self.errors.pop(0) if self.errors else None
        if error is not None and self.lost_after == 0:
            raise error
        claimed = await self._claim(asked)
        finished = False
        try:
            index = 0
            async for batch in self._tell(claimed):
                yield batch
                index += 1
                if error is not None and index == self.lost_after:
                    raise error
            finished = True
        finally:
            self.left += not finished

    async def result(self, asked: RunOrder | str) -> AsyncIterator[bytes]:
        """The same story for somebody who hears its first word as a sign of life, and its end."""
        async with aclosing(cast("AsyncGenerator[Sequence[RunEvent], None]", self.run(asked))) as batches:
            first = True
            async for batch in batches:
                if batch[-1].type in TERMINAL_EVENTS or batch[-1].type == "run.waiting":
                    yield batch[-1].model_dump_json().encode()
                elif first:
                    yield b""
                first = False

    async def wake(self) -> None:
        """See Runner; does the whole queue when it ``works_when_woken``."""
        self.woken += 1
        if self.works_when_woken:
            await self.work_queue()

    async def cancel(self, run_id: str) -> None:
        """See Runner."""
        self.cancelled.append(run_id)
        self._stops.setdefault(run_id, asyncio.Event()).set()

    async def work_queue(self) -> int:
        """Fetch and tell what is queued, as another runner would; how many runs."""
        done = 0
        while claimed := await self.store.claim_next("other", 10.0, 3, 8):
            for run in claimed:
                self.orders.append(run.order)
                async for _ in self._tell(run):
                    pass
                done += 1
        return done

    async def take_over(self, run_id: str) -> None:
        """Go on with a run that this runner was lost with, in silence; it must still be held."""
        async for _ in self._tell(self.held[run_id], start=self.lost_after):
            pass

    async def _claim(self, asked: RunOrder | str) -> ClaimedRun:
        flow = None if isinstance(asked, str) else CATALOG.flows.get(asked.request.flow_type)
        new = asked if flow is None else NewRun(asked, flow.version, flow.model_dump(mode="json"))  # type: ignore[arg-type]
        claimed = await self.store.claim(new, "scripted", 10.0, 3)
        if claimed is None:
            raise Conflict(f"run {asked} is taken already, or has ended", param="run_id")
        self.orders.append(claimed.order)
        return claimed

    async def _tell(self, claimed: ClaimedRun, start: int = 0) -> AsyncIterator[list[RunEvent]]:
        order, lease, seq = claimed.order, claimed.lease, claimed.last_seq
        stop = self._stops.setdefault(order.run_id, asyncio.Event())
        started: Step = ("run.started", None, {"flow": order.request.flow_type, "attempt": order.attempt})
        for index, part in enumerate(self.story(order)):
            if index < start:
                continue
            if index and self.gate is not None and not await self._opened(self.gate, stop):
                part = run_result(order, status="cancelled", answer="")
            steps = [part] if isinstance(part, RunResult) else list(part)
            if index == 0:
                steps.insert(0, started)
            events = []
            for step in steps:
                kind, node, data = _ending(step) if isinstance(step, RunResult) else step
                seq += kind != "node.token"
                events.append(_event(order, seq, kind, node, data))
            write = RunWrite(events=tuple(event for event in events if event.type != "node.token"))
            if isinstance(part, RunResult) and part.waiting is not None:
                await self.store.wait(lease, part.waiting, write)
            elif isinstance(part, RunResult):
                await self.store.finish(lease, part, write)
            elif write:
                await self.store.commit(lease, write)
            self.held[order.run_id] = ClaimedRun(order, claimed.flow_version, {}, lease, seq)
            yield events
            if isinstance(part, RunResult):
                return

    async def _opened(self, gate: asyncio.Event, stop: asyncio.Event) -> bool:
        waits = {asyncio.create_task(gate.wait()), asyncio.create_task(stop.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        return not stop.is_set()


def _ending(result: RunResult) -> Step:
    data: dict[str, Any] = {"result": result.model_dump(mode="json")}
    if result.waiting is not None:
        data["waiting"] = result.waiting.model_dump(mode="json")
    return (f"run.{result.status}", result.waiting.node if result.waiting else None, data)


def _event(order: RunOrder, seq: int, kind: str, node: str | None, data: dict[str, Any]) -> RunEvent:
    values = {
        "run_id": order.run_id,
        "seq": seq,
        "time": time.time(),
        "type": kind,
        "node": node,
        "data": data,
    }
    return RunEvent.model_validate({**values, "attempt": order.attempt})
