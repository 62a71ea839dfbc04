"""Gathering what the health score judges; what cannot be learnt is left out, never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from actors.health_score import HealthFacts, health_document
from registries.contracts.errors import CapacityError, StoreError
from serve_app.caller import caller_of
from serve_app.services import Services


async def system_health(services: Services, since: float, until: float) -> dict[str, Any]:
    """The score: of the runs created in [since, until), and of the system as it is now.

    A store that is away is a part of the answer, no error.
    """
    found = {**await _of_store(services, since, until), **await _of_cluster(services)}
    config = services.config
    return health_document(
        HealthFacts(
            deadline_s=config.default_deadline_s,
            queue_limit=config.max_queued_runs,
            **found,
            **_of_breakers(services.gateway.snapshot()),
        )
    )


async def _of_store(services: Services, since: float, until: float) -> dict[str, Any]:
    try:
        queue = await services.store.queue()
        totals = (await services.store.statistics(since, until, caller_of().tenant))["totals"]
    except StoreError:
        return {"store_reachable": False}
    by_status = totals["by_status"]
    return {
        "store_reachable": True,
        "queued": queue.queued,
        "oldest_queued_s": queue.oldest_queued_s,
        "success_rate": totals["success_rate"],
        "ended": by_status["completed"] + by_status["failed"],
        "latency_p95_s": totals["latency_s"]["p95"],
    }


async def _of_cluster(services: Services) -> dict[str, Any]:
    try:
        parts = (await services.cluster.readiness())["parts"]
    except CapacityError:
        return {}
    return {"parts": len(parts), "ready_parts": sum(part["state"] == "ready" for part in parts.values())}


def _of_breakers(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    breakers = snapshot.get("breakers")
    if breakers is None:
        return {}
    states = Counter(breaker["state"] for breaker in breakers)
    return {
        "breakers": states.total(),
        "breakers_open": states["open"],
        "breakers_half_open": states["half_open"],
    }
