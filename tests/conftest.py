"""Fixtures that several suites share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before Ray is imported: Serve's threads outlive a driver for a moment and would start a cluster themselves.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

from tests.runtime_cluster import RunningCluster, attached_to, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """The one runtime of the session: Ray, HAProxy, the API and scripted models, as `parley up` starts it."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def driver(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster with this process attached to it (Serve handles, actors)."""
    with attached_to(cluster):
        yield cluster
