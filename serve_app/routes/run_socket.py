"""WS /ws/runs/{run_id}: a run's log, and every change of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from registries.contracts.errors import NotFound, ParleyError, Unauthorized
from registries.contracts.runs import RunStatus
from serve_app.auth import KeyCheck, presented_key
from serve_app.caller import caller_of
from serve_app.errors import as_parley_error
from serve_app.request_facts import facts_of
from serve_app.run_detail import all_events, stored_run
from serve_app.run_status import status_after
from serve_app.run_stream import RunStream
from serve_app.services import Services
from serve_app.shown_event import ShownEvent, is_over, last_durable, shown
from serve_app.streaming import STALLED_S

AUTH_PATIENCE_S = 5.0
MAX_UNPROVEN = 64
"""Connections that have not shown their key yet; strangers shall not fill the places of readers."""
CLOSED_NORMALLY = 1000
TRY_AGAIN = 1013
UNAUTHORIZED = 4401
UNKNOWN_RUN = 4404


def run_socket_routes(services: Services, keys: KeyCheck, patience_s: float = AUTH_PATIENCE_S) -> APIRouter:
    """The key comes as a header, or, from browsers, as the first message: ``{"type": "auth", "key": …}``."""
    router = APIRouter(tags=["runs"])
    gate = _KeyGate(keys, patience_s)

    @router.websocket("/ws/runs/{run_id}")
    async def updates(socket: WebSocket, run_id: str) -> None:
        # Accepted first: a refusal before the handshake has no close code.
        await socket.accept()
        try:
            await gate.check(socket)
            await _serve(socket, services, run_id)
        except (WebSocketDisconnect, TimeoutError):
            # Gone, or takes nothing any more: there is nobody to say goodbye to.
            return
        except ParleyError as error:
            await _close(socket, _close_code(error), error.message)

    return router


class _KeyGate:
    def __init__(self, keys: KeyCheck, patience_s: float) -> None:
        self._keys = keys
        self._patience_s = patience_s
        self._unproven = 0

    async def check(self, socket: WebSocket) -> None:
        """Raises Unauthorized when the key does not come, or is wrong."""
        if facts_of(socket.scope).authenticated:
            return
        refusal = Unauthorized("the API key is needed: as X-API-Key, or in a first message of type auth")
        if presented_key(socket.scope["headers"]) is not None or self._unproven >= MAX_UNPROVEN:
            raise refusal
        self._unproven += 1
        try:
            async with asyncio.timeout(self._patience_s):
                first = await socket.receive_text()
        except (TimeoutError, KeyError):
            # KeyError: a binary message.
            raise refusal from None
        finally:
            self._unproven -= 1
        if not self._keys.accepts([(b"x-api-key", _key_in(first))]):
            raise refusal


def _key_in(message: str) -> bytes:
    try:
        told = json.loads(message)
    except (ValueError, RecursionError):
        # RecursionError: brackets in brackets in brackets.
        return b""
    if not isinstance(told, dict) or told.get("type") != "auth" or not isinstance(told.get("key"), str):
        return b""
    key: str = told["key"]
    return key.encode(errors="replace")


async def _serve(socket: WebSocket, services: Services, run_id: str) -> None:
    """Until the run ended and that was sent, or the client is gone."""
    sending = asyncio.create_task(_send_updates(socket, services, run_id))
    listening = asyncio.create_task(_await_disconnect(socket))
    try:
        await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, listening):
            task.cancel()
        await asyncio.wait({sending, listening})
    if not sending.cancelled():
        sending.result()
        await _close(socket, CLOSED_NORMALLY, "")


async def _send_updates(socket: WebSocket, services: Services, run_id: str) -> None:
    tenant = caller_of().tenant
    row = await stored_run(services.store, run_id, tenant)
    log = shown(await all_events(services.store, run_id, tenant))
    status = status_after(log, row["status"])
    await _send(socket, run_id, status, log)
    newest = last_durable(log)
    if is_over(newest, until_waiting=False):
        return
    after = newest.seq if newest is not None else 0
    stream = RunStream(services.store, services.runs.tail, run_id, tenant, after)
    async with aclosing(stream.batches()) as batches:
        async for batch in batches:
            status = status_after(batch, status)
            await _send(socket, run_id, status, batch)


async def _send(socket: WebSocket, run_id: str, status: RunStatus, events: Sequence[ShownEvent]) -> None:
    """One RunUpdate; TimeoutError when the client takes nothing."""
    head: dict[str, Any] = {"type": "run_update", "run_id": run_id, "status": status}
    log = b",".join(item.json for item in events).decode()
    async with asyncio.timeout(STALLED_S):
        await socket.send_text(f'{json.dumps(head)[:-1]}, "execution_log": [{log}]}}')


async def _await_disconnect(socket: WebSocket) -> None:
    """Read on, and let go what comes: messages that nobody reads would fill the memory."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(STALLED_S):
            # RFC 6455: a reason of at most 123 bytes.
            await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
    except (RuntimeError, OSError, TimeoutError):
        # The client closed in the same moment.
        return


def _close_code(error: Exception) -> int:
    known = as_parley_error(error)
    if isinstance(known, Unauthorized):
        return UNAUTHORIZED
    return UNKNOWN_RUN if isinstance(known, NotFound) else TRY_AGAIN
