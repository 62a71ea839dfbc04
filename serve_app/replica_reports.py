"""What the replicas say about themselves: queues, load, engines; for /api/system."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import ray.exceptions
from ray import serve
from ray.serve.exceptions import RayServeException

REPORTING = frozenset({"FlowRunner", "ModelReplica"})
"""Deployments with a ``status`` method."""
TIMEOUT_S = 2.0
"""A busy replica answers in milliseconds. One whose slots are all taken does not: the call waits for one."""


class ReplicaReports:
    """Asks every replica of the reporting deployments; keeps one handle a deployment."""

    def __init__(self, get_handle: Callable[[str, str], Any] = serve.get_deployment_handle) -> None:
        self._get_handle = get_handle
        self._handles: dict[tuple[str, str], Any] = {}

    async def add_to(self, applications: Mapping[str, Any]) -> None:
        """Give each deployment that has a running replica its ``reports``, and ``silent``: how many running
        replicas gave none within TIMEOUT_S. One that is late takes the reports of its siblings with it
        (Serve's broadcast answers whole or not at all)."""
        asked = [
            (app, deployment, facts)
            for app, application in applications.items()
            for deployment, facts in application["deployments"].items()
            if deployment in REPORTING and facts["replicas"].get("RUNNING")
        ]
        answers = await asyncio.gather(*(self._ask(app, deployment) for app, deployment, _ in asked))
        for (_, _, facts), reports in zip(asked, answers, strict=True):
            facts["reports"] = reports
            facts["silent"] = max(0, facts["replicas"]["RUNNING"] - len(reports))

    async def _ask(self, app: str, deployment: str) -> list[Any]:
        try:
            if (app, deployment) not in self._handles:
                # In a thread: Serve asks its controller, synchronously, whether the deployment exists.
                self._handles[app, deployment] = await asyncio.to_thread(self._get_handle, deployment, app)
            reports = (
                await self._handles[app, deployment]
                .broadcast("status")
                .results_async(timeout_s=TIMEOUT_S, return_exceptions=True)
            )
        except TimeoutError:
            # The handle is kept: a new one first has to learn of its replicas, which takes longest when busy.
            return []
        except (RayServeException, ray.exceptions.RayError):
            self._handles.pop((app, deployment), None)
            return []
        return [report for report in reports if not isinstance(report, BaseException)]
