"""POST /api/inference: one model call, whole or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from actors.telemetry.tracing import start_span
from flows.ports import Generator
from registries.contracts.generation import GenerationRequest, GenerationResult
from serve_app.body import read_body
from serve_app.catalog_checks import check_generation_request
from serve_app.openapi import body_of, error_answers
from serve_app.request_facts import RequestFacts, facts_of
from serve_app.schemas import InferenceRequest
from serve_app.services import Services
from serve_app.streaming import generation_frames, start_stream


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
        if facts.traceparent is not None:
            call = call.model_copy(update={"metadata": {**call.metadata, "traceparent": facts.traceparent}})
        if body.stream:
            return await start_stream(_traced_frames(services.gateway, call, facts), facts.request_id)
        with start_span("inference", facts.traceparent):
            result = await services.gateway.generate(call)
        return Response(result.model_dump_json().encode(), media_type="application/json")

    return router


async def _traced_frames(
    generator: Generator, call: GenerationRequest, facts: RequestFacts
) -> AsyncGenerator[bytes, None]:
    with start_span("inference", facts.traceparent):
        async with aclosing(generation_frames(generator.stream(call))) as frames:
            async for frame in frames:
                yield frame
