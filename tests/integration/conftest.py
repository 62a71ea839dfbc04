"""The shared runtime: its front door, and its FlowRunner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.front_door_client import front_door_client
from tests.runtime_cluster import RunningCluster


@pytest.fixture(scope="module")
def http(cluster: RunningCluster) -> Iterator[httpx.Client]:
    """A client of the front door, once everything is ready."""
    with front_door_client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def runner(driver: RunningCluster) -> Any:
    """A streaming handle of the FlowRunner."""
    from ray import serve

    return serve.get_deployment_handle("FlowRunner", app_name="parley").options(stream=True)
