"""POST /api/orchestrate: a flow, waited for or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from registries.contracts.runs import RunResult
from serve_app.body import read_body
from serve_app.openapi import body_of, error_answers, key_and
from serve_app.routes.runs import CREATE_ERRORS, create_run
from serve_app.schemas import OrchestrateRequest
from serve_app.services import Services


def orchestrate_routes(services: Services) -> APIRouter:
    """Runs as POST /api/runs makes them, never in the background.

    A run that began and failed is an answer (200, ``status: failed``), as it is in a stream: it has nodes,
    usage and an artifact. A run that never began is an error with its status.
    """
    router = APIRouter(tags=["runs"])

    @router.post(
        "/api/orchestrate",
        summary="Run a flow",
        response_model=RunResult,
        responses=error_answers(*CREATE_ERRORS, stream="the run's events"),
        openapi_extra=key_and(body_of(OrchestrateRequest)),
    )
    async def orchestrate(request: Request) -> Response:
        body = await read_body(request, OrchestrateRequest, services.config.max_body_bytes)
        return await create_run(services, request, body, body.answer_mode)

    return router
