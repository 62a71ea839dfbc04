"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx

from registries.contracts.errors import ParleyError
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import RunEvent, RunRequest, RunResult
from serve_app.client import requests, wire
from serve_app.client.answers import (
    GivenFeedback,
    HealthScore,
    Readiness,
    RunDetail,
    RunFilters,
    RunPage,
    RunRow,
    RunState,
    RunSummary,
    SystemFacts,
)
from serve_app.client.awaiting import Awaiting
from serve_app.client.call import Call, StreamCall
from serve_app.client.catalogue import FlowDetail, FlowList, ModelList, StrategyList
from serve_app.client.connection import Connection, find_connection
from serve_app.client.following import Following, Until
from serve_app.client.retries import Retries, Tries
from serve_app.client.statistics import Dashboard, Statistics

T = TypeVar("T")


class AsyncClient:
    """As Client, for asyncio: the same methods, errors and rules. Cancelling a call closes its connection."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        connection: Connection | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retries: Retries | None = None,
    ) -> None:
        self.connection = connection or find_connection(base_url, api_key)
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(transport=transport, **wire.client_options(self.connection))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._http.aclose()

    async def inference(
        self, request: GenerationRequest, idempotency_key: str | None = None
    ) -> GenerationResult:
        """One model call, which ends with the wait for it.

        With an ``idempotency_key`` it is made once, however often the request is repeated, goes on when you
        leave, and its answer is kept.
        """
        return await self._ask(requests.inference(request, idempotency_key))

    async def stream_inference(
        self, request: GenerationRequest, idempotency_key: str | None = None
    ) -> AsyncGenerator[GenerationChunk | GenerationResult, None]:
        """Its chunks as they come, then the result. Closing the iterator ends the call.

        With an ``idempotency_key`` the call goes on then: with the same key its answer comes in one chunk.
        """
        async with aclosing(self._relay(requests.stream_inference(request, idempotency_key))) as items:
            async for item in items:
                yield item

    async def run(self, request: RunRequest, idempotency_key: str | None = None) -> RunResult:
        """One deliberation, whole. A failed run is a RunResult whose status says so, one that waits too."""
        return await self._ask(requests.run(request, idempotency_key))

    async def stream_run(
        self, request: RunRequest, idempotency_key: str | None = None
    ) -> AsyncGenerator[RunEvent, None]:
        """Its events as they come, over a broken connection too.

        The last one is terminal and carries the result, or is run.waiting. An ``idempotency_key`` that made
        a run already gives that one from its beginning, with the waits and failures that it got over.
        """
        order = requests.stream_run(request, idempotency_key)
        async with aclosing(
            self._follow(Following(self._retries, None, until="waiting", order=order))
        ) as events:
            async for event in events:
                yield event

    async def create_run(self, request: RunRequest, idempotency_key: str | None = None) -> RunSummary:
        """Have it run in the background: it is committed when this returns."""
        return await self._ask(requests.create_run(request, idempotency_key))

    async def runs(self, cursor: str | None = None, **filters: Unpack[RunFilters]) -> RunPage:
        """One page of runs, newest first."""
        return await self._ask(requests.runs(cursor, filters))

    async def iter_runs(self, **filters: Unpack[RunFilters]) -> AsyncGenerator[RunRow, None]:
        """All of them, page by page."""
        cursor: str | None = None
        while True:
            page = await self.runs(cursor, **filters)
            for row in page.runs:
                yield row
            if (cursor := page.next_cursor) is None:
                return

    async def get_run(self, run_id: str, log: bool = True, state: bool = False) -> RunDetail:
        """A run as it is now: ``log`` with its durable events, ``state`` with its checkpoints."""
        return await self._ask(requests.get_run(run_id, log, state))

    async def wait_for(
        self, run_id: str, timeout_s: float | None = None, until: Until = "waiting"
    ) -> RunDetail:
        """The run once it ended (or waits for a human, unless ``until`` is "end"), without its log.

        Raises BudgetError (param timeout_s) when that takes longer; the run goes on.
        """
        awaiting = Awaiting(self._retries, timeout_s, until)
        while True:
            try:
                seen = await self.get_run(run_id, log=False)
            except ParleyError as error:
                wait_s = awaiting.wait_after_error(error)
            else:
                if (pause_s := awaiting.wait_after(seen)) is None:
                    return seen
                wait_s = pause_s
            await asyncio.sleep(wait_s)

    async def events(
        self, run_id: str, after: int = 0, until: Until = "end"
    ) -> AsyncGenerator[RunEvent, None]:
        """A run's events after number ``after``: history first, then live, to its end.

        A broken connection is made again, for as long as the client's patience (see Retries) lasts: durable
        events come exactly once and in order, tokens as they are. ``until="waiting"`` ends it where the run
        waits for a human as well.
        """
        async with aclosing(self._follow(Following(self._retries, run_id, after, until))) as events:
            async for event in events:
                yield event

    async def cancel_run(self, run_id: str, idempotency_key: str | None = None) -> RunState:
        """Ask for its end: "cancelled", or "running" while it is being stopped."""
        return await self._ask(requests.cancel_run(run_id, idempotency_key))

    async def restart_run(
        self, run_id: str, deadline_s: float | None = None, idempotency_key: str | None = None
    ) -> RunSummary:
        """Let a failed run go on after its last committed step."""
        return await self._ask(requests.restart_run(run_id, deadline_s, idempotency_key))

    async def fork_run(
        self,
        run_id: str,
        checkpoint_id: str | None = None,
        state: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> RunSummary:
        """A new run from one of its checkpoints (the last), with channels and request fields changed."""
        return await self._ask(requests.fork_run(run_id, checkpoint_id, state, request, idempotency_key))

    async def resume_run(
        self,
        run_id: str,
        action: Literal["approve", "edit", "reject"],
        text: str | None = None,
        comment: str | None = None,
        deadline_s: float | None = None,
        interrupt_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunSummary:
        """Answer the question that it waits with; ``text`` belongs to "edit".

        Give the ``interrupt_id`` of the question that was read (of ``waiting``): when the run asks another
        one by now that is a Conflict, and without it the other one is answered.
        """
        return await self._ask(
            requests.resume_run(run_id, action, text, comment, deadline_s, interrupt_id, idempotency_key)
        )

    async def give_feedback(
        self, run_id: str, rating: float, comment: str | None = None, idempotency_key: str | None = None
    ) -> GivenFeedback:
        """Rate it, from 0 (useless) to 1 (just right); a later rating replaces it."""
        return await self._ask(requests.give_feedback(run_id, rating, comment, idempotency_key))

    async def stats(self, hours: float = 24, user: str | None = None) -> Statistics:
        """Figures of the runs of the last hours."""
        return await self._ask(requests.stats(hours, user))

    async def user_stats(self, user: str, hours: float = 24) -> Dashboard:
        """One user's dashboard."""
        return await self._ask(requests.user_stats(user, hours))

    async def health_score(self, hours: float = 1) -> HealthScore:
        """How well the runtime does, and of what that is made."""
        return await self._ask(requests.health_score(hours))

    async def models(self) -> ModelList:
        """Registered models with their state, and the tiers."""
        return await self._ask(requests.models())

    async def strategies(self) -> StrategyList:
        """Registered strategies."""
        return await self._ask(requests.strategies())

    async def flows(self) -> FlowList:
        """Registered flows."""
        return await self._ask(requests.flows())

    async def flow(self, name: str) -> FlowDetail:
        """One flow in full, with its drawing."""
        return await self._ask(requests.flow(name))

    async def ready(self, timeout_s: float | None = None) -> Readiness:
        """What is loaded, what is not, and why; also while it is not ready. Never repeated."""
        return await self._ask(requests.ready(timeout_s))

    async def system(self) -> SystemFacts:
        """Replicas, queues, breakers, machines."""
        return await self._ask(requests.system())

    async def _ask(self, call: Call[T]) -> T:
        limit_s = wire.whole_s(call, self.connection)
        tries = Tries(self._retries, call.request, limit_s, call.repeatable)
        while True:
            try:
                return call.read(await self._http.request(**wire.whole_options(call, self.connection)))
            except (httpx.HTTPError, ParleyError) as error:
                wait_s = tries.wait_after(wire.as_our_error(error, self.connection))
            await asyncio.sleep(wait_s)

    async def _relay(self, call: StreamCall[T]) -> AsyncGenerator[T, None]:
        """A stream that cannot be taken up again: repeated only while nothing of it had come."""
        tries = Tries(self._retries, call.request, self.connection.timeout_s)
        while True:
            reader = wire.StreamReader(call)
            try:
                async with aclosing(self._read(reader)) as items:
                    async for item in items:
                        yield item
                return
            except ParleyError as error:
                if reader.opened:
                    raise
                wait_s = tries.wait_after(error)
            await asyncio.sleep(wait_s)

    async def _follow(self, following: Following) -> AsyncGenerator[RunEvent, None]:
        while not following.ended:
            try:
                async with aclosing(self._read(wire.StreamReader(following.call()))) as events:
                    async for event in events:
                        if following.take(event):
                            yield event
                following.finish()
            except ParleyError as error:
                await asyncio.sleep(following.wait_after(error))

    async def _read(self, reader: wire.StreamReader[T]) -> AsyncGenerator[T, None]:
        """The items of one connection. Raises StreamCut when it ends before its last."""
        try:
            async with self._http.stream(**wire.stream_options(reader.request)) as answer:
                if answer.is_error:
                    await answer.aread()
                reader.open(answer)
                async for piece in answer.aiter_bytes():
                    for item in reader.take(piece):
                        yield item
                    if reader.ended:
                        return
        except httpx.HTTPError as error:
            raise wire.as_our_error(error, self.connection, reader.opened) from None
        reader.close()
