"""POST /api/orchestrate and GET /api/runs/{run_id}: runs of flows."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from registries.contracts.errors import NotFound
from registries.contracts.runs import RunOrder, RunResult
from serve_app.body import read_body
from serve_app.live_run import LiveRun
from serve_app.openapi import body_of, error_answers
from serve_app.request_facts import facts_of
from serve_app.schemas import OrchestrateRequest, StoredRun
from serve_app.services import Services
from serve_app.streaming import run_frames, start_stream

_STATUSES = (400, 401, 402, 404, 409, 413, 429, 500, 502, 503, 504)
# One key, one tenant for now: the contract's default.
_TENANT: str = RunOrder.model_fields["tenant"].default


def orchestrate_routes(services: Services) -> APIRouter:
    """Runs. A client that goes away leaves the run alone, unless it said ``on_disconnect: cancel``.

    A run that began and failed is an answer (200, ``status: failed``), as it is in a stream: it has nodes,
    usage and an artifact. A run that never began is an error with its status.
    """
    router = APIRouter(tags=["runs"])

    @router.post(
        "/api/orchestrate",
        summary="Run a flow",
        response_model=RunResult,
        responses=error_answers(*_STATUSES, stream="the run's events"),
        openapi_extra=body_of(OrchestrateRequest),
    )
    async def orchestrate(request: Request) -> Response:
        facts = facts_of(request.scope)
        body = await read_body(request, OrchestrateRequest, services.config.max_body_bytes)
        live = await services.runs.start(
            body.run_request(), facts.request_id, facts.traceparent, with_reader=body.streams
        )
        if body.streams:
            return await start_stream(run_frames(live.events()), facts.request_id)
        result = await _end_of(live)
        return Response(result.model_dump_json().encode(), media_type="application/json")

    @router.get(
        "/api/runs/{run_id}",
        summary="A run's state and result",
        response_model=StoredRun,
        responses=error_answers(401, 404, 503),
    )
    async def run(run_id: str) -> Response:
        stored = await services.run_reader.get(run_id, _TENANT)
        if stored is None:
            raise NotFound(f"unknown run {run_id!r}", param="run_id")
        return JSONResponse(stored)

    return router


async def _end_of(live: LiveRun) -> RunResult:
    try:
        return await live.result()
    except asyncio.CancelledError:
        live.leave()
        raise
