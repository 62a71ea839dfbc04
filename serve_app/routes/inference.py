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
from serve_app.call_reader import CallReader, WholeAnswer
from serve_app.caller import caller_of
from serve_app.catalog_checks import check_generation_request
from serve_app.idempotency import REPLAYED, idempotency_key
from serve_app.keyed_calls import CallAsk
from serve_app.openapi import body_of, error_answers, key_and
from serve_app.request_facts import RequestFacts, facts_of
from serve_app.schemas import InferenceRequest
from serve_app.services import Services
from serve_app.sse import frame
from serve_app.streaming import generation_frames, start_stream, token_frame

ERRORS = (400, 401, 402, 404, 413, 422, 429, 500, 502, 503, 504, 507)


def inference_routes(services: Services) -> APIRouter:
    """Direct mode. A client that goes away cancels the call, down to the engine, unless it sent a key."""
    router = APIRouter(tags=["inference"])

    @router.post(
        "/api/inference",
        summary="Ask one model",
        response_model=GenerationResult,
        responses=error_answers(*ERRORS, stream="tokens, the result"),
        openapi_extra=key_and(body_of(InferenceRequest), "answer"),
    )
    async def inference(request: Request) -> Response:
        facts = facts_of(request.scope)
        body = await read_body(request, InferenceRequest, services.config.max_body_bytes)
        check_generation_request(body, services.catalog)
        call = body.generation(facts.request_id)
        if facts.traceparent is not None:
            call = call.model_copy(update={"metadata": {**call.metadata, "traceparent": facts.traceparent}})
        key = idempotency_key(request, body)
        if key is not None:
            ask = CallAsk(call, key, caller_of().tenant, body.stream, facts.traceparent)
            return await _keyed_answer(services.calls.attend(ask), body.stream, facts)
        if body.stream:
            return await start_stream(_traced_frames(services.gateway, call, facts), facts.request_id)
        with start_span("inference", facts.traceparent):
            result = await services.gateway.generate(call)
        return Response(result.model_dump_json().encode(), media_type="application/json")

    return router


async def _keyed_answer(reader: CallReader, streams: bool, facts: RequestFacts) -> Response:
    if not streams:
        answer = await reader.answer()
        headers = REPLAYED if reader.replayed else {}
        return Response(answer.encode(), media_type="application/json", headers=headers)
    stream = await start_stream(_keyed_frames(reader), facts.request_id)
    if reader.replayed:
        stream.headers.update(REPLAYED)
    return stream


async def _keyed_frames(reader: CallReader) -> AsyncGenerator[bytes, None]:
    async with aclosing(reader.items()) as items:
        async for item in items:
            yield frame("result", item.json.encode()) if isinstance(item, WholeAnswer) else token_frame(item)


async def _traced_frames(
    generator: Generator, call: GenerationRequest, facts: RequestFacts
) -> AsyncGenerator[bytes, None]:
    with start_span("inference", facts.traceparent):
        async with aclosing(generation_frames(generator.stream(call))) as frames:
            async for frame in frames:
                yield frame
