"""Fixtures that several suites share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.runtime_cluster import RunningCluster, running_cluster

# Ray reads it once, when it is imported, and test modules import it before any fixture runs.
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """The one runtime of the session: Ray, HAProxy, the API and scripted models, as `parley up` starts it."""
    with running_cluster() as running:
        yield running
