"""Facts about the cluster as /api/ready, /api/system and /metrics show them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psutil
import ray
import ray.exceptions
from ray import serve
from ray.serve.exceptions import RayServeException

from actors.gpu import read_gpus
from actors.readiness import cause_of
from registries.contracts.errors import CapacityError
from serve_app.recent import Recent
from serve_app.replica_reports import ReplicaReports

KEEP_S = 1.0
"""Dashboards and probes poll; Serve's controller is asked once a second at most, whoever polls."""
_GB = 1024**3

Facts = Mapping[str, Any]


class RayCluster:
    """Implements serve_app.services.Cluster; every blocking question goes to a thread."""

    def __init__(
        self,
        readiness: Callable[[], Awaitable[Facts]],
        metrics_page: Callable[[], Awaitable[str]],
    ) -> None:
        self._readiness = Recent(readiness, KEEP_S, time.monotonic)
        self._metrics_page = Recent(metrics_page, KEEP_S, time.monotonic)
        self._reports = ReplicaReports()
        self._deployments = Recent(self._read_deployments, KEEP_S, time.monotonic)
        self._machine = Recent(_read_machine_in_thread, KEEP_S, time.monotonic)

    async def readiness(self) -> Facts:
        """See Cluster."""
        return await self._readiness.get()

    async def deployments(self) -> Facts:
        """See Cluster; CapacityError while Serve's controller does not answer."""
        return await self._deployments.get()

    async def _read_deployments(self) -> Facts:
        applications = await asyncio.to_thread(read_deployments)
        await self._reports.add_to(applications)
        return applications

    async def machine(self) -> Facts:
        """See Cluster."""
        return await self._machine.get()

    async def metrics_page(self) -> str:
        """See Cluster."""
        return await self._metrics_page.get()


async def _read_machine_in_thread() -> Facts:
    return await asyncio.to_thread(read_machine)


def read_deployments() -> dict[str, Any]:
    """Per application and deployment: status, message, replicas by state. Blocks."""
    try:
        applications = serve.status().applications
    except (RayServeException, ray.exceptions.RayError) as error:
        raise CapacityError("Serve's controller does not answer now; try again", retry_after_s=1.0) from error
    return {
        name: {
            "status": str(app.status.value),
            "deployments": {
                deployment: {
                    "status": str(facts.status.value),
                    "message": cause_of(facts.message) if facts.message else "",
                    "replicas": {str(getattr(s, "value", s)): n for s, n in facts.replica_states.items()},
                }
                for deployment, facts in app.deployments.items()
            },
        }
        for name, app in applications.items()
    }


def read_machine() -> Facts:
    """This node's CPU, memory and VRAM, and the cluster's nodes with their resources. Blocks."""
    memory = psutil.virtual_memory()
    gpus = read_gpus()
    return {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "cpu_count": psutil.cpu_count(),
        "memory_total_gb": round(memory.total / _GB, 2),
        "memory_available_gb": round(memory.available / _GB, 2),
        "vram": [dataclasses.asdict(device) for device in gpus.devices],
        "vram_reason": gpus.reason,
        "nodes": [_node(node) for node in ray.nodes()],
    }


def _node(node: Mapping[str, Any]) -> Facts:
    resources = {name: amount for name, amount in node["Resources"].items() if not name.startswith("node:")}
    return {"address": node["NodeManagerAddress"], "alive": node["Alive"], "resources": resources}
