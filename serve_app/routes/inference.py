"""POST /api/inference: one model call, whole or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from registries.contracts.generation import GenerationResult
from serve_app.body import read_body
from serve_app.openapi import body_of, error_answers
from serve_app.request_facts import facts_of
from serve_app.run_request_check import check_generation_request
from serve_app.schemas import InferenceRequest
from serve_app.services import Services
from serve_app.streaming import EventStream, generation_frames, start_frames

PATIENCE_S = 10.0
"""How long an error may still become a status line before a silent stream is begun."""


def inference_routes(services: Services) -> APIRouter:
    """Direct mode. A client that goes away cancels the call, down to the engine."""
    router = APIRouter(tags=["inference"])

    @router.post(
        "/api/inference",
        summary="Ask one model",
        response_model=GenerationResult,
        responses=error_answers(400, 401, 402, 404, 413, 429, 502, 503, 504, stream="tokens, the result"),
        openapi_extra=body_of(InferenceRequest),
    )
    async def inference(request: Request) -> Response:
        facts = facts_of(request.scope)
        body = await read_body(request, InferenceRequest, services.config.max_body_bytes)
        check_generation_request(body, services.catalog)
        call = body.generation(facts.request_id)
        if body.stream:
            frames = await start_frames(generation_frames(services.gateway.stream(call)), PATIENCE_S)
            return EventStream(frames, facts.request_id)
        result = await services.gateway.generate(call)
        return Response(result.model_dump_json().encode(), media_type="application/json")

    return router
