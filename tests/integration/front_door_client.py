"""The front door of a running cluster, as the integration tests ask it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster

QUESTION = "What is 48 + 37?"


@contextmanager
def front_door_client(running: RunningCluster) -> Iterator[httpx.Client]:
    """A client with the key, once everything is ready."""
    with httpx.Client(
        base_url=running.base_url, headers=running.headers, timeout=60, trust_env=False
    ) as client:
        wait_for(lambda: client.get("/api/ready").status_code == 200, 90)
        yield client


@contextmanager
def waiting_client(
    running: RunningCluster,
    path: str,
    ask: dict[str, Any],
    headers: dict[str, str] | None = None,
    pause_s: float = 0.0,
) -> Iterator[None]:
    """A client that has asked and reads nothing; it leaves at the end. ``pause_s``: between head and body."""
    body = json.dumps(ask).encode()
    given = {"Host": "x", "Content-Length": str(len(body)), **running.headers, **(headers or {})}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    head = "\r\n".join([*lines, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", running.config.http_port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head if pause_s else head + body)
        if pause_s:
            time.sleep(pause_s)
            client.sendall(body)
        yield


def wait_for(condition: Callable[[], bool], within_s: float) -> float:
    """Poll; the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < paced(within_s), "the condition did not come true in time"
        time.sleep(0.05)
    return time.monotonic() - started


def running_calls(http: httpx.Client, model: str) -> int:
    """Requests in the slots of that model's engine; -1 while its replica has not reported."""
    app = http.get("/api/system").json()["deployments"][f"model-{model}"]
    reports = app["deployments"]["ModelReplica"].get("reports")
    return sum(report["running"] for report in reports) if reports else -1
