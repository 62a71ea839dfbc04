"""An engine inside this process, started on first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from registries.contracts.engine import Engine, EngineCall, EngineResult
from registries.contracts.generation import GenerationChunk


class EngineCompleter:
    """Completer over an Engine that ``make`` builds; every caller waits for the one start.

    The start is a task of this object, not of the caller who came first: that one may be cancelled
    without taking the load away from the others. A failed start is tried again by the next call.
    """

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._engine: Engine | None = None
        self._starting: asyncio.Task[Engine] | None = None

    @property
    def is_up(self) -> bool:
        """Whether ``started`` would not wait."""
        return self._engine is not None

    async def complete(self, call: EngineCall) -> EngineResult:
        """See Completer; raises what the engine's start raises."""
        return await (await self.started()).complete(call)

    async def stream(self, call: EngineCall) -> AsyncIterator[GenerationChunk | EngineResult]:
        """See Completer."""
        engine = await self.started()
        items = engine.stream(call)
        try:
            async for item in items:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def abort(self, request_id: str) -> None:
        """See Completer."""
        if self._engine is not None:
            await self._engine.abort(request_id)

    async def aclose(self) -> None:
        """Stop a start that is under way, shut the engine down; idempotent."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.shutdown()

    async def started(self) -> Engine:
        """The engine, once it is up; raises what its start raises."""
        if self._engine is not None:
            return self._engine
        if self._starting is None or (self._starting.done() and self._engine is None):
            self._starting = asyncio.create_task(self._start(), name="engine-start")
        return await asyncio.shield(self._starting)

    async def _start(self) -> Engine:
        engine = self._make()
        try:
            await engine.start()
        except BaseException:
            await engine.shutdown()
            raise
        self._engine = engine
        return engine
