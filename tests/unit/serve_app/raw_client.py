"""Long connections to the app itself, which an in-process HTTP client would only show when they are over."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.unit.serve_app.front_door import KEY, events_of, until

WITH_KEY = ((b"x-api-key", KEY.encode()),)


class RawCall:
    """One ASGI call: what was sent by the app, and a client that can stop taking it."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(scope, self.inbox.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        """Of an HTTP answer; 0 before it."""
        return next((int(m["status"]) for m in self.sent if m["type"].endswith("response.start")), 0)

    @property
    def text(self) -> str:
        """Of an HTTP answer, so far."""
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def events(self) -> list[tuple[str, str | None, Any]]:
        """Of an SSE answer, so far."""
        return events_of(self.text.rpartition("\n\n")[0])

    @property
    def updates(self) -> list[dict[str, Any]]:
        """Messages of a WebSocket, so far."""
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]

    @property
    def close_code(self) -> int | None:
        """With which the app closed the WebSocket."""
        return next((int(m["code"]) for m in self.sent if m["type"] == "websocket.close"), None)

    async def over(self) -> None:
        """Wait until the app is done."""
        await until(self.task.done)
        self.task.result()


@contextlib.asynccontextmanager
async def sse(
    app: Any, path: str, query: str = "", body: Any = None, **headers: str
) -> AsyncIterator[RawCall]:
    """GET a stream of events, or POST for one with a body; the client leaves with the block."""
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "headers": [*WITH_KEY, *given],
        "query_string": query.encode(),
        "server": ("t", 80),
        "scheme": "http",
    }
    async with _call(app, scope) as call:
        if body is not None:
            call.inbox.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        yield call


@contextlib.asynccontextmanager
async def websocket(
    app: Any, path: str, headers: Any = WITH_KEY, denial: bool = True
) -> AsyncIterator[RawCall]:
    """Open a WebSocket; the client leaves with the block."""
    extensions = {"websocket.http.response": {}} if denial else {}
    scope = {
        "type": "websocket",
        "path": path,
        "headers": list(headers),
        "query_string": b"",
        "server": ("t", 80),
        "scheme": "ws",
        "subprotocols": [],
        "extensions": extensions,
    }
    async with _call(app, scope) as call:
        call.inbox.put_nowait({"type": "websocket.connect"})
        yield call


@contextlib.asynccontextmanager
async def _call(app: Any, scope: dict[str, Any]) -> AsyncIterator[RawCall]:
    call = RawCall(app, scope)
    try:
        yield call
    finally:
        # As Serve does when the client goes away.
        call.task.cancel()
        await asyncio.wait({call.task})
