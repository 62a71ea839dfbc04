"""GET /api/health, /api/ready, /api/system and /metrics: how the runtime is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from actors.stores.store import Store
from registries.contracts.errors import StoreError
from serve_app.openapi import error_answers
from serve_app.request_facts import facts_of
from serve_app.schemas import HealthAnswer, ReadyAnswer, SystemAnswer
from serve_app.services import Services

# Prometheus text exposition format 0.0.4.
_METRICS_TYPE = "text/plain; version=0.0.4"


def operations_routes(services: Services) -> APIRouter:
    """Health and readiness are open; the details of readiness, and the rest, need the key."""
    router = APIRouter(tags=["operations"])

    @router.get("/api/health", summary="This process answers")
    async def health() -> HealthAnswer:
        return HealthAnswer(version=services.version)

    @router.get(
        "/api/ready",
        summary="Everything that was asked for is loaded",
        response_model=ReadyAnswer,
        response_model_exclude_none=True,
        responses={503: {"model": ReadyAnswer, "description": "loading, or something failed"}},
    )
    async def ready(request: Request) -> Response:
        facts = await services.cluster.readiness()
        shown = ReadyAnswer(status=facts["status"])
        if facts_of(request.scope).authenticated:
            shown = ReadyAnswer(status=facts["status"], parts=dict(facts["parts"]))
        return Response(
            shown.model_dump_json(exclude_none=True).encode(),
            status_code=200 if shown.status == "ready" else 503,
            media_type="application/json",
        )

    @router.get("/api/system", summary="Replicas, queues, breakers, machines", responses=error_answers(401))
    async def system() -> SystemAnswer:
        return SystemAnswer(
            version=services.version,
            instance=services.config.instance,
            deployments=dict(await services.cluster.deployments()),
            gateway=dict(services.gateway.snapshot()),
            ingress={"live_runs": services.runs.live},
            store=await _store_facts(services.store),
            machine=dict(await services.cluster.machine()),
        )

    @router.get("/metrics", summary="Prometheus metrics of the whole cluster", responses=error_answers(401))
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(await services.cluster.metrics_page(), media_type=_METRICS_TYPE)

    return router


async def _store_facts(store: Store) -> dict[str, Any]:
    """Backend, schema version, sizes; a database that is away is a fact like another."""
    try:
        return asdict(await store.facts())
    except StoreError as error:
        return {"state": "away", "reason": error.message}
