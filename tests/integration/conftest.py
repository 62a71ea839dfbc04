"""The driver side of the shared runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime_cluster import RunningCluster, attached_to


@pytest.fixture(scope="session")
def driver(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster with this process attached to it."""
    with attached_to(cluster):
        yield cluster


@pytest.fixture(scope="session")
def runner(driver: RunningCluster) -> Any:
    """A streaming handle of the FlowRunner."""
    from ray import serve

    return serve.get_deployment_handle("FlowRunner", app_name="parley").options(stream=True)
