"""Bounds the work in flight: a full house answers 429 at once instead of queueing for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from registries.contracts.errors import CapacityError
from serve_app.error_response import error_response
from serve_app.request_facts import facts_of

Kind = Literal["request", "watcher"]
_DENIAL = "websocket.http.response"
# RFC 6455, registry of close codes: try again later.
_TRY_AGAIN = 1013


class Admission:
    """Counts POSTs in flight, streams included; one more than ``max_ongoing`` answers 429.

    Connections that only watch runs (events, WebSockets) last as long as these, cost little, and have the
    bound ``max_watching`` of their own. Other reads are never counted: health, state and metrics stay
    visible while the house is full. The counts are this replica's own. Serve's limits alone do not
    suffice: behind HAProxy they answer in plain text, and only after its own queue is full as well.
    """

    def __init__(
        self, app: ASGIApp, max_ongoing: int, max_watching: int, on_refused: Callable[[str], None]
    ) -> None:
        self._app = app
        self._on_refused = on_refused
        self._max: dict[Kind, int] = {"request": max_ongoing, "watcher": max_watching}
        self._ongoing: dict[Kind, int] = {"request": 0, "watcher": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = _kind_of(scope)
        if kind is None:
            await self._app(scope, receive, send)
        elif self._ongoing[kind] >= self._max[kind]:
            await self._refuse(kind, scope, receive, send)
        else:
            self._ongoing[kind] += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._ongoing[kind] -= 1

    async def _refuse(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        self._on_refused("ingress_full" if kind == "request" else "watchers_full")
        message = f"{self._ongoing[kind]} {kind}s are in flight, the limit; try again"
        if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
            await receive()
            await send({"type": "websocket.close", "code": _TRY_AGAIN})
            return
        refusal = CapacityError(message, retry_after_s=1.0)
        await error_response(refusal, facts_of(scope).request_id)(scope, receive, send)


def _kind_of(scope: Scope) -> Kind | None:
    if scope["type"] == "websocket":
        return "watcher"
    if scope["type"] != "http":
        return None
    if scope["method"] == "POST":
        return "request"
    path: str = scope["path"]
    return "watcher" if path.startswith("/api/runs/") and path.endswith("/events") else None
