"""POST /api/runs/{run_id}/cancel and /feedback."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from registries.contracts.runs import Feedback
from serve_app.body import read_body
from serve_app.caller import caller_of
from serve_app.idempotency import idempotency_key
from serve_app.openapi import body_of, error_answers, key_and
from serve_app.run_schemas import CancelAnswer, FeedbackAnswer, FeedbackRequest
from serve_app.services import Services


def run_action_routes(services: Services) -> APIRouter:
    """What a client does to a run that exists."""
    router = APIRouter(tags=["runs"])
    store, max_bytes = services.store, services.config.max_body_bytes

    @router.post(
        "/api/runs/{run_id}/cancel",
        summary="End a run",
        response_model=CancelAnswer,
        responses={
            202: {"model": CancelAnswer, "description": "it runs, and is being stopped"},
            **error_answers(400, 401, 404, 409, 422, 503, 507),
        },
        openapi_extra=key_and(),
    )
    async def cancel(run_id: str, request: Request) -> Response:
        status = await services.runs.cancel(run_id, caller_of().tenant, idempotency_key(request))
        code = 202 if status == "running" else 200
        return JSONResponse({"run_id": run_id, "status": status}, status_code=code)

    @router.post(
        "/api/runs/{run_id}/feedback",
        summary="Rate a run",
        response_model=FeedbackAnswer,
        responses=error_answers(400, 401, 404, 413, 422, 503, 507),
        openapi_extra=key_and(body_of(FeedbackRequest)),
    )
    async def feedback(run_id: str, request: Request) -> FeedbackAnswer:
        body = await read_body(request, FeedbackRequest, max_bytes)
        caller = caller_of()
        given = Feedback(rating=body.rating, comment=body.comment)
        key = idempotency_key(request, body)
        await store.give_feedback(run_id, caller.tenant, caller.user, given, key)
        return FeedbackAnswer(run_id=run_id, rating=body.rating, comment=body.comment)

    return router
