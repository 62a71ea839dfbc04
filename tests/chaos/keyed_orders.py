"""Clients that order runs under a key each, and come again until they have been accepted."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PAUSE_S = 0.25
"""Before an order is repeated whose answer says nothing of a time, or did not come."""


class KeyedOrders:
    """Orders are dealt to the clients by ``deal``; ``accepted`` has the run of each, by its key.

    ``wrong`` are answers that are neither what was asked for nor a refusal as the API promises it.
    """

    def __init__(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        self.accepted: dict[str, str] = {}
        self.refused = 0
        self.replayed = 0
        self.cut = 0
        self.wrong: list[str] = []
        self._session = session
        self._body = body
        self._keys: asyncio.Queue[str] = asyncio.Queue()

    def deal(self, count: int) -> None:
        """So many more orders, for whichever clients have none."""
        for _ in range(count):
            self._keys.put_nowait(uuid.uuid4().hex)

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[None]:
        """So many at once; the block's end waits until all that was dealt has been accepted."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._client()) for _ in range(count)]
            yield
            await self._keys.join()
            for task in tasks:
                task.cancel()

    async def _client(self) -> None:
        while True:
            key = await self._keys.get()
            run = await self._persist(
                "POST", "/api/runs", 202, json=self._body, headers={"idempotency-key": key}
            )
            self.accepted[key] = str(run["run_id"])
            # What was acknowledged is there for whoever asks next, or cannot be asked for.
            seen = await self._persist("GET", f"/api/runs/{run['run_id']}", 200)
            if seen["run_id"] != run["run_id"]:
                self.wrong.append(f"{run['run_id']} was asked for, and answered {seen['run_id']}")
            self._keys.task_done()

    async def _persist(self, method: str, path: str, wanted: int, **request: Any) -> dict[str, Any]:
        """The answer, however often it takes to be asked for."""
        while True:
            pause_s = PAUSE_S
            try:
                async with self._session.request(method, path, **request) as answer:
                    text = await answer.text()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self.cut += 1
            else:
                if answer.status == wanted:
                    self.replayed += answer.headers.get("idempotency-replayed") == "true"
                    found: dict[str, Any] = json.loads(text)
                    return found
                if fault := refusal_fault(answer, text):
                    self.wrong.append(f"{method} {path}: {fault}: {answer.status} {text[:300]}")
                else:
                    self.refused += 1
                    pause_s = float(answer.headers["retry-after"])
            await asyncio.sleep(pause_s)


def refusal_fault(answer: aiohttp.ClientResponse, text: str) -> str | None:
    """What is wrong with a refusal while the database is away; None for one as it should be."""
    if answer.status != 503:
        return "the status is not 503"
    after = answer.headers.get("retry-after", "")
    if not after.isdecimal() or int(after) < 1:
        return f"Retry-After is {after!r}"
    try:
        error = json.loads(text)["error"]
        shown = {name: error[name] for name in ("code", "message", "request_id", "retryable")}
    except (ValueError, KeyError, TypeError):
        return "the body is no error of ours"
    if shown["code"] != "store_unavailable" or shown["retryable"] is not True:
        return "the error is another one"
    if not shown["message"] or not shown["request_id"]:
        return "the error does not say enough"
    # One line, in our words: no stack trace, no SQL, no address with a password.
    if "Traceback" in text or 'File "' in text or "\n" in shown["message"]:
        return "the body tells of our inside"
    return None
