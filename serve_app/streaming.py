"""Streams to SSE: direct mode's chunks and runs' events, heartbeats, and errors in our shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registries.contracts.generation import GenerationChunk, GenerationResult
from serve_app.errors import as_parley_error, error_body, error_fact
from serve_app.pumped_frames import AHEAD_FRAMES, PumpedFrames
from serve_app.shown_event import ShownEvent
from serve_app.sse import HEARTBEAT, frame

HEARTBEAT_S = 15.0
"""Below the 60 s after which common proxies and browsers give up on a silent connection."""
STALLED_S = 30.0
"""Two heartbeats: a client that takes nothing for so long has its connection closed."""
RUN_FRAMES_AHEAD = 2
"""A run's batches may be large, and how far behind a reader may be is bounded by its EventReader."""
PATIENCE_S = 10.0
"""How long an error may still become a status line before a silent stream is begun."""


class EventStream(Response):
    """An SSE response fed by frames (see ``start_stream``).

    They are closed when the client goes away (the server cancels us, sending fails, or the client takes
    nothing for ``stalled_s``). An error among
    them becomes ``event: error`` with our shape: the status line is long gone.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: PumpedFrames,
        request_id: str,
        heartbeat_s: float = HEARTBEAT_S,
        headers: Mapping[str, str] | None = None,
        stalled_s: float = STALLED_S,
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._request_id = request_id
        self._heartbeat_s = heartbeat_s
        self._stalled_s = stalled_s
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        beats = asyncio.create_task(self._beat(send))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await self._send_all(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            beats.cancel()
            await asyncio.wait({beats})
            if not beats.cancelled():
                # A beat that could not be sent; whoever waits for the frames hears of it there.
                beats.exception()
            await self._frames.aclose()

    async def _send_all(self, send: Send) -> None:
        try:
            async for data in self._frames:
                await self._send(send, data)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - becomes an error of our tree
            known = as_parley_error(error)
            if known is not error:
                structlog.stdlib.get_logger("serve_app.http").exception("stream_failed")
            await self._send(send, frame("error", error_body(error_fact(known), self._request_id)))

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._stalled_s):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except (TimeoutError, OSError) as error:
            raise ClientDisconnect from error

    async def _beat(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while True:
            due_at = self._sent_at + self._heartbeat_s
            if loop.time() >= due_at:
                await self._send(send, HEARTBEAT)
            else:
                await asyncio.sleep(due_at - loop.time())


async def start_stream(
    source: AsyncGenerator[bytes, None],
    request_id: str,
    headers: Mapping[str, str] | None = None,
    ahead: int = AHEAD_FRAMES,
    patience_s: float | None = PATIENCE_S,
) -> EventStream:
    """The response for the frames of ``source``; raises the error that comes before the first frame.

    ``ahead`` frames are read before they can be sent. After ``patience_s`` a silent stream is begun without
    its first frame; None: never, where the status line promises what the first frame tells.
    """
    frames = PumpedFrames(source, ahead)
    await frames.begin(patience_s)
    return EventStream(frames, request_id, headers=headers)


async def generation_frames(
    items: AsyncIterator[GenerationChunk | GenerationResult],
) -> AsyncGenerator[bytes, None]:
    """``event: token`` with ``{"text"}`` for every chunk, then ``event: result`` with the whole."""
    try:
        async for item in items:
            if isinstance(item, GenerationResult):
                yield frame("result", item.model_dump_json().encode())
            else:
                yield token_frame(item.text)
    finally:
        # Closing here, not when the collector comes by, is what frees the engine's slot at once.
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def token_frame(text: str) -> bytes:
    """A piece of a direct answer's text."""
    return frame("token", json.dumps({"text": text}, ensure_ascii=False).encode())


async def run_frames(batches: AsyncGenerator[list[ShownEvent], None]) -> AsyncGenerator[bytes, None]:
    """``event: <type>``, ``id: <seq>``, the RunEvent as data; one write for a whole batch."""
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(frame(item.event.type, item.json, item.event.seq) for item in batch)
