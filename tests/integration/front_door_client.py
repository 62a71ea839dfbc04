"""The front door of a running cluster, as the integration tests ask it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
