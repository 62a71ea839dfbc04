"""The outermost layer: identity, response headers, the log line, and the last catch."""

from __future__ import annotations

import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.error_response import error_response
from serve_app.errors import as_parley_error
from serve_app.request_facts import SCOPE_KEY, read_request_facts

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"referrer-policy", b"no-referrer"),
)
CSP_NAME = b"content-security-policy"
_CSP = (CSP_NAME, b"default-src 'self'; frame-ancestors 'none'")


class Envelope:
    """Gives the request its facts, the response its headers, and turns what nobody caught into a 500.

    ``echo_request_id`` is False behind Ray Serve, whose own middleware adds X-Request-ID to every
    response; two of them would confuse clients.
    """

    def __init__(self, app: ASGIApp, echo_request_id: bool = True) -> None:
        self._app = app
        self._echo_request_id = echo_request_id
        self._log = structlog.stdlib.get_logger("serve_app.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._carry_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = read_request_facts(scope["headers"])
        scope[SCOPE_KEY] = facts
        structlog.contextvars.bind_contextvars(request_id=facts.request_id)
        started_at = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message.get("headers", ()), facts.request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = 499
        except Exception as error:  # noqa: BLE001 - becomes an error of our tree
            self._log.exception("http_request_failed", path=scope["path"], method=scope["method"])
            if not status:
                answer = error_response(as_parley_error(error), facts.request_id)
                await answer(scope, receive, send_with_headers)
        finally:
            self._log_line(scope, status, time.monotonic() - started_at)

    async def _carry_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        facts = read_request_facts(scope["headers"])
        scope[SCOPE_KEY] = facts
        structlog.contextvars.bind_contextvars(request_id=facts.request_id)
        try:
            await self._app(scope, receive, send)
        except Exception:
            # Raised again: the server closes the connection with 1011, and no detail gets out.
            self._log.exception("websocket_failed", path=scope["path"])
            raise

    def _headers(self, given: Any, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [*given, *SECURITY_HEADERS]
        if not any(name == CSP_NAME for name, _ in headers):
            headers.append(_CSP)
        if self._echo_request_id:
            headers.append((b"x-request-id", request_id.encode("ascii")))
        return headers

    def _log_line(self, scope: Scope, status: int, duration_s: float) -> None:
        # Reads are polled (health, metrics): they are worth a line only when somebody debugs.
        write = self._log.info if scope["method"] == "POST" else self._log.debug
        write(
            "http_request",
            method=scope["method"],
            path=scope["path"],
            status=status or 499,
            duration=round(duration_s, 6),
        )
