"""A stream whose source runs in one task of its own, from its first item to its closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

AHEAD_FRAMES = 64
"""How far a source may run ahead of a slow client before it has to wait."""


class _End(Exception):
    """The source is exhausted."""


class PumpedFrames:
    """Frames of ``source``, read ahead by a task.

    One task throughout, because spans and cancel scopes inside a source must end in the context that
    began them. ``aclose`` cancels the task and so closes the source, at once.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], ahead: int = AHEAD_FRAMES) -> None:
        self._source = source
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(ahead)
        self._begun = asyncio.Event()
        self._failed_first: Exception | None = None
        self._task = asyncio.create_task(self._pump())

    async def begin(self, patience_s: float | None) -> None:
        """Wait for the first frame, at most ``patience_s``; None: as long as it takes.

        Raises the source's error when that comes first, so that it can still be an HTTP status.
        Cancelling closes the source.
        """
        try:
            # Not wait_for: before Python 3.12 it can swallow a cancellation.
            async with asyncio.timeout(patience_s):
                await self._begun.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if self._failed_first is not None:
            raise self._failed_first

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        item = await self._queue.get()
        if isinstance(item, _End):
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    async def aclose(self) -> None:
        """Cancel and close the source; idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _pump(self) -> None:
        try:
            async for frame in self._source:
                await self._queue.put(frame)
                self._begun.set()
            await self._queue.put(_End())
        except Exception as error:  # noqa: BLE001 - raised again where the frames are read
            if not self._begun.is_set():
                self._failed_first = error
            await self._queue.put(error)
        finally:
            self._begun.set()
            await self._source.aclose()
