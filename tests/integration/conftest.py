"""The FlowRunner of the shared runtime."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime_cluster import RunningCluster


@pytest.fixture(scope="session")
def runner(driver: RunningCluster) -> Any:
    """A streaming handle of the FlowRunner."""
    from ray import serve

    return serve.get_deployment_handle("FlowRunner", app_name="parley").options(stream=True)
