"""Refuses what carries no key, before anything of the body is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from registries.contracts.errors import Unauthorized
from serve_app.auth import KeyCheck
from serve_app.error_response import error_response
from serve_app.request_facts import facts_of

OPEN_PATHS: frozenset[str] = frozenset({"/api/health", "/api/ready", "/docs", "/openapi.json"})
OPEN_PREFIX = "/docs/assets/"
SOCKET_PREFIX = "/ws/"
"""Browsers cannot give a WebSocket headers: these routes take the key as a first message, too."""
# RFC 6455, section 7.4.1; before the handshake servers turn it into a 403.
_POLICY_VIOLATION = 1008


class Authentication:
    """401 without the key; open routes and ``/ws/`` pass, and learn whether a right key came along."""

    def __init__(self, app: ASGIApp, keys: KeyCheck) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"].startswith(SOCKET_PREFIX):
            facts_of(scope).authenticated = self._keys.accepts(scope["headers"])
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket" and not self._keys.accepts(scope["headers"]):
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = facts_of(scope)
        facts.authenticated = self._keys.accepts(scope["headers"])
        path: str = scope["path"]
        if facts.authenticated or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            await self._app(scope, receive, send)
            return
        refusal = Unauthorized("a valid API key is needed: send it as X-API-Key or as Authorization: Bearer")
        await error_response(refusal, facts.request_id)(scope, receive, send)
