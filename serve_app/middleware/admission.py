"""Bounds the work in flight: a full house answers 429 at once instead of queueing for ever."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from registries.contracts.errors import CapacityError
from serve_app.error_response import error_response
from serve_app.request_facts import facts_of


class Admission:
    """Counts POSTs in flight, streams included; one more than ``max_ongoing`` answers 429.

    Reads are never counted: health, state and metrics stay visible while the house is full. The count
    is this replica's own. Serve's limits alone do not suffice: behind HAProxy they answer in plain text,
    and only after its own queue is full as well.
    """

    def __init__(self, app: ASGIApp, max_ongoing: int, on_refused: Callable[[str], None]) -> None:
        self._app = app
        self._on_refused = on_refused
        self._max_ongoing = max_ongoing
        self._ongoing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._ongoing >= self._max_ongoing:
            self._on_refused("ingress_full")
            message = f"{self._ongoing} requests are in flight, the limit; try again"
            refusal = CapacityError(message, retry_after_s=1.0)
            await error_response(refusal, facts_of(scope).request_id)(scope, receive, send)
            return
        self._ongoing += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._ongoing -= 1
