"""The front door on the real cluster, behind HAProxy."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.runtime_cluster import RunningCluster


@pytest.fixture(scope="module")
def http(cluster: RunningCluster) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=cluster.base_url, headers=cluster.headers, timeout=60, trust_env=False
    ) as client:
        yield client


def test_health(http: httpx.Client) -> None:
    assert http.get("/api/health").json()["status"] == "ok"
