"""POST /api/runs/{run_id}/fork: a new run that begins with another one's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from fastapi import APIRouter, Request
from starlette.responses import Response

from actors.running.fork_state import fork_state
from actors.stores.records import CheckpointRow
from registries.contracts.errors import ValidationError
from registries.contracts.runs import RunOrder, RunRequest
from serve_app.bad_input import describe_bad_input
from serve_app.body import read_body
from serve_app.caller import caller_of
from serve_app.idempotency import idempotency_key
from serve_app.openapi import body_of, error_answers, key_and
from serve_app.pinned_flow import pinned_flow
from serve_app.request_facts import facts_of
from serve_app.run_answers import new_run_answer
from serve_app.run_ask import Fork, RunAsk
from serve_app.run_detail import stored_run
from serve_app.run_schemas import ForkRequest, RunSummary
from serve_app.services import Services


def run_fork_routes(services: Services) -> APIRouter:
    """The run that is forked is only read, in whatever state it is."""
    router = APIRouter(tags=["runs"])
    store = services.store

    @router.post(
        "/api/runs/{run_id}/fork",
        summary="Make a new run from a checkpoint of another",
        status_code=202,
        response_model=RunSummary,
        responses=error_answers(
            400, 401, 404, 409, 413, 422, 429, 500, 503, 504, 507, stream="the run's events, with mode stream"
        ),
        openapi_extra=key_and(body_of(ForkRequest, required=False)),
    )
    async def fork(run_id: str, request: Request) -> Response:
        body = await read_body(request, ForkRequest, services.config.max_body_bytes, may_be_empty=True)
        row = await stored_run(store, run_id, caller_of().tenant)
        flow = await pinned_flow(store, services.catalog, row)

        async def state(order: RunOrder) -> tuple[CheckpointRow, ...]:
            edits = _edits(body)
            return await fork_state(store, services.graphs, flow, run_id, order, body.checkpoint_id, edits)

        facts = facts_of(request.scope)
        ask = RunAsk(
            request=_changed(row, body.request),
            request_id=facts.request_id,
            traceparent=facts.traceparent,
            key=idempotency_key(request, body),
            caller=caller_of(),
            fork=Fork(run_id, flow, state),
        )
        return await new_run_answer(services, ask, body.mode)

    return router


def _edits(body: ForkRequest) -> dict[str, Any]:
    """The edits of the state; another prompt or input of the request is one of its input."""
    asked = dict(body.request.get("input") or {})
    if "prompt" in body.request:
        asked["prompt"] = body.request["prompt"]
    edited = body.state.get("input", {})
    if not asked or not isinstance(edited, Mapping):
        return dict(body.state)  # what is no input is refused where the edits are read
    return {**body.state, "input": {**asked, **edited}}


def _changed(row: Mapping[str, Any], changes: Mapping[str, Any]) -> RunRequest:
    """The run's request with these fields; raises ValidationError naming ``request.FIELD``."""
    if changes.get("flow_type", row["flow"]) != row["flow"]:
        raise ValidationError(
            f"request.flow_type: a fork goes on in its own flow, {row['flow']!r}", param="request.flow_type"
        )
    try:
        return RunRequest.model_validate({**row["request"], **changes})
    except pydantic.ValidationError as error:
        told = describe_bad_input(error, RunRequest)
        raise ValidationError(told.message, param=f"request.{told.param}") from None
