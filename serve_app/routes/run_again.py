"""POST /api/runs/{run_id}/restart and /resume: a run is queued again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from fastapi import APIRouter, Request
from starlette.responses import Response

from actors.stores.records import Accepted, IdempotencyKey
from actors.stores.store import RunStore
from registries.contracts.errors import Conflict
from registries.contracts.runs import Decision, RunRequest, RunResult
from serve_app.body import read_body
from serve_app.caller import caller_of
from serve_app.idempotency import idempotency_key
from serve_app.openapi import body_of, error_answers, key_and
from serve_app.request_facts import facts_of
from serve_app.run_answers import queued_again_answer
from serve_app.run_ask import RunAsk
from serve_app.run_detail import stored_run
from serve_app.run_schemas import RestartRequest, ResumeRequest, RunSummary
from serve_app.services import Services

_SHOWN_CHARS = 200
"""Of the text that a human is to judge, in an error's message."""
_WRITES = (400, 401, 404, 409, 413, 422, 429, 500, 503, 504, 507)
_WAITED: dict[int | str, dict[str, Any]] = {
    200: {"model": RunResult, "description": "with mode wait: the run's result"}
}


def run_again_routes(services: Services) -> APIRouter:
    """Both answer as POST /api/runs does."""
    router = APIRouter(tags=["runs"])
    store, max_bytes = services.store, services.config.max_body_bytes

    @router.post(
        "/api/runs/{run_id}/restart",
        summary="Go on with a failed run after its last committed step",
        status_code=202,
        response_model=RunSummary,
        responses={**_WAITED, **error_answers(*_WRITES)},
        openapi_extra=key_and(body_of(RestartRequest, required=False)),
    )
    async def restart(run_id: str, request: Request) -> Response:
        body = await read_body(request, RestartRequest, max_bytes, may_be_empty=True)
        row = await stored_run(store, run_id, caller_of().tenant)
        ask = _ask_of(row, request, idempotency_key(request, body))
        deadline_s = _deadline_s(services, body.deadline_s, ask)

        async def queue_again() -> Accepted:
            return await store.restart(run_id, ask.caller.tenant, deadline_s, ask.key)

        return await queued_again_answer(services, queue_again, row, ask, deadline_s, body.mode)

    @router.post(
        "/api/runs/{run_id}/resume",
        summary="Decide for a run that waits for a human",
        status_code=202,
        response_model=RunSummary,
        responses={**_WAITED, **error_answers(*_WRITES)},
        openapi_extra=key_and(body_of(ResumeRequest)),
    )
    async def resume(run_id: str, request: Request) -> Response:
        body = await read_body(request, ResumeRequest, max_bytes)
        row = await stored_run(store, run_id, caller_of().tenant)
        ask = _ask_of(row, request, idempotency_key(request, body))
        deadline_s = _deadline_s(services, body.deadline_s, ask)

        async def queue_again() -> Accepted:
            return await _resumed(store, run_id, body.decision(), deadline_s, ask)

        return await queued_again_answer(services, queue_again, row, ask, deadline_s, body.mode)

    return router


async def _resumed(
    store: RunStore, run_id: str, decision: Decision, deadline_s: float, ask: RunAsk
) -> Accepted:
    """See RunStore.resume; whoever decides on another question is told what is asked now."""
    try:
        return await store.resume(run_id, ask.caller.tenant, decision, deadline_s, ask.key)
    except Conflict as error:
        if error.param != "interrupt_id":
            raise
        waiting = (await stored_run(store, run_id, ask.caller.tenant))["waiting"]
        if waiting is None:
            # Somebody has answered that one, too.
            raise
        raise Conflict(
            f"{error.message}; the decision on {decision.interrupt_id!r} was not taken."
            f" It asks {_asked(waiting)}",
            param="interrupt_id",
        ) from None


def _asked(waiting: Mapping[str, Any]) -> str:
    """A question in words: its id, its node, and what a human is to judge."""
    text, said = waiting.get("text", ""), f"{waiting['interrupt_id']!r} of node {waiting['node']}"
    if waiting.get("question"):
        said += f": {waiting['question']}"
    if text:
        said += f" The text: {text[:_SHOWN_CHARS]}{'…' if len(text) > _SHOWN_CHARS else ''}"
    return said


def _ask_of(row: Mapping[str, Any], request: Request, key: IdempotencyKey | None) -> RunAsk:
    facts = facts_of(request.scope)
    try:
        asked = RunRequest.model_validate(row["request"])
    except pydantic.ValidationError:
        raise Conflict("this version of the runtime cannot read the run's request", param="run_id") from None
    return RunAsk(
        request=asked,
        request_id=facts.request_id,
        traceparent=facts.traceparent,
        key=key,
        caller=caller_of(),
    )


def _deadline_s(services: Services, given: float | None, ask: RunAsk) -> float:
    """As long as the run was given when it was made, unless this request says otherwise."""
    return given or ask.request.deadline_s or services.config.default_deadline_s
