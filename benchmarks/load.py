"""A load generator: closed loop (so many in flight) and open loop (so many a second, come what may)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Target:
    """One server, with the body and headers that ask it the same thing as the others."""

    name: str
    url: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Sample:
    """Latencies in seconds, and what went wrong."""

    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0


def quantile_ms(latencies_s: list[float], q: float) -> float:
    """Nearest rank, in milliseconds."""
    ordered = sorted(latencies_s)
    return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def session(in_flight: int) -> aiohttp.ClientSession:
    """Keep-alive connections, as many as calls in flight."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=120),
    )


async def ask(client: aiohttp.ClientSession, target: Target) -> bytes:
    """One request; raises RuntimeError for anything but 200."""
    data = json.dumps(target.body).encode()
    headers = {"Content-Type": "application/json", **target.headers}
    async with client.post(target.url, data=data, headers=headers) as response:
        content = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{target.name}: {response.status} {content[:200]!r}")
        return content


async def closed_loop(
    client: aiohttp.ClientSession,
    target: Target,
    in_flight: int,
    requests: int | None = None,
    seconds: float | None = None,
) -> Sample:
    """``in_flight`` askers, each asking again when it was answered; ends after requests or seconds."""
    sample = Sample()
    started = time.perf_counter()
    left = iter(range(requests)) if requests is not None else None

    async def asker() -> None:
        while left is None or next(left, None) is not None:
            if seconds is not None and time.perf_counter() - started >= seconds:
                return
            await _timed(sample, lambda: ask(client, target), time.perf_counter())

    await asyncio.gather(*(asker() for _ in range(in_flight)))
    sample.seconds = time.perf_counter() - started
    return sample


async def open_loop(
    client: aiohttp.ClientSession, target: Target, per_second: float, seconds: float
) -> Sample:
    """Requests at fixed times; latency counts from when one was due, so that a slow server hides nothing."""
    sample = Sample()
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(_timed(sample, lambda: ask(client, target), due))
    sample.seconds = time.perf_counter() - started
    return sample


async def _timed(sample: Sample, call: Callable[[], Awaitable[object]], since: float) -> None:
    try:
        await call()
        sample.latencies_s.append(time.perf_counter() - since)
    except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
        sample.errors.append(f"{type(error).__name__}: {error}"[:200])
