"""Steady load on the API that keeps a record of every answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.runtime_cluster import RunningCluster

RIGHT_ANSWER = "The answer is 85."
QUESTION = "What is 48 + 37?"


@dataclass(slots=True)
class Record:
    """What clients saw. ``untyped`` are answers that are neither right nor an error of our shape."""

    right: int = 0
    typed: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    wrong: list[Any] = field(default_factory=list)
    untyped: list[Any] = field(default_factory=list)
    last_trouble: float = 0.0
    rights_after_trouble: int = 0

    def count_right(self) -> None:
        self.right += 1
        self.rights_after_trouble += 1

    def count_trouble(self) -> None:
        self.last_trouble = time.monotonic()
        self.rights_after_trouble = 0


@asynccontextmanager
async def load(cluster: RunningCluster, clients: int = 4, **request: Any) -> AsyncIterator[Record]:
    """``clients`` callers of /api/orchestrate, one request after another each, until the block ends."""
    record = Record()
    stop = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=40)
    session = aiohttp.ClientSession(cluster.base_url, headers=cluster.headers, timeout=timeout)
    async with session, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(session, record, stop, request))
        try:
            yield record
        finally:
            stop.set()


async def _client(
    session: aiohttp.ClientSession, record: Record, stop: asyncio.Event, request: dict[str, Any]
) -> None:
    body = {"flow_type": "challenge", "prompt": QUESTION, "deadline_s": 30, **request}
    while not stop.is_set():
        try:
            async with session.post("/api/orchestrate", json=body) as answer:
                await _judge(record, answer)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            # The connection was cut or refused: a client cannot know more, and tries again.
            record.cut += 1
            record.count_trouble()
        await asyncio.sleep(0.02)


async def _judge(record: Record, answer: aiohttp.ClientResponse) -> None:
    try:
        body = await answer.json()
    except (aiohttp.ContentTypeError, ValueError):
        body = await answer.text()
    if answer.status == 200:
        if (
            isinstance(body, dict)
            and body.get("answer") == RIGHT_ANSWER
            and body.get("status") == "completed"
        ):
            record.count_right()
            return
        record.count_trouble()
        failed = isinstance(body, dict) and body.get("status") == "failed" and body.get("error")
        if failed:
            record.typed[str(body["error"]["code"])] += 1
        else:
            record.wrong.append(body)
        return
    record.count_trouble()
    if isinstance(body, dict) and isinstance(body.get("error"), dict) and body["error"].get("code"):
        record.typed[str(body["error"]["code"])] += 1
    else:
        record.untyped.append((answer.status, str(body)[:200]))
