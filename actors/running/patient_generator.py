"""A full model is waited for: an accepted run does not fail because others came first."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from actors.gateway.faults import FULL
from flows.ports import Generator
from registries.contracts.errors import CapacityError
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult

PAUSE_S = 1.0
"""Between two tries where the error names no time."""
JITTER = 0.5
"""Share of the pause by which it is shorter or longer at random: waiting nodes shall not come together."""


class PatientGenerator:
    """Generator port around another, for nodes of runs.

    The front door refuses at once what a model cannot take, because a client can come back; a node cannot,
    and what the run has cost by then would be lost. A call that found the queue full is therefore tried again
    until the request's deadline; the last error is raised then. Requests without a deadline are not repeated,
    and a provider that rests after failures is not waited for: that is the gateway's to decide.
    """

    def __init__(
        self,
        inner: Generator,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._sleep = sleep
        self._random = rng or random.Random()

    def resolve_model(self, request: GenerationRequest) -> str:
        """See Generator."""
        return self._inner.resolve_model(request)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """See Generator."""
        ends_at = self._ends_at(request)
        while True:
            try:
                return await self._inner.generate(self._now(request, ends_at))
            except CapacityError as error:
                await self._wait(error, ends_at)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        """See Generator; a stream that has begun is never begun again."""
        ends_at = self._ends_at(request)
        begun = False
        while True:
            inner = cast(
                AsyncGenerator[GenerationChunk | GenerationResult, None],
                self._inner.stream(self._now(request, ends_at)),
            )
            try:
                async with aclosing(inner) as items:
                    async for item in items:
                        begun = True
                        yield item
                return
            except CapacityError as error:
                if begun:
                    raise
                await self._wait(error, ends_at)

    def _ends_at(self, request: GenerationRequest) -> float:
        return self._clock() + (request.deadline_s or 0.0)

    def _now(self, request: GenerationRequest, ends_at: float) -> GenerationRequest:
        """With the time that remains."""
        if request.deadline_s is None:
            return request
        return request.model_copy(update={"deadline_s": max(0.001, ends_at - self._clock())})

    async def _wait(self, error: CapacityError, ends_at: float) -> None:
        """Raises the error when there is no time for another try, or no use."""
        pause_s = (error.retry_after_s or PAUSE_S) * self._random.uniform(1 - JITTER, 1 + JITTER)
        if not error.context.get(FULL) or self._clock() + pause_s >= ends_at:
            raise error
        await self._sleep(pause_s)
