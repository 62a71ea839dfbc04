"""POST and GET /api/runs, GET /api/runs/{run_id}: durable runs, made and read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from actors.running.state_document import state_document
from actors.stores.records import RunFilter
from serve_app.body import read_body
from serve_app.caller import caller_of
from serve_app.idempotency import idempotency_key
from serve_app.openapi import body_of, error_answers, key_and, query_of
from serve_app.pinned_flow import pinned_flow
from serve_app.query import check_known, flag
from serve_app.request_facts import facts_of
from serve_app.run_answers import new_run_answer
from serve_app.run_ask import RunAsk
from serve_app.run_detail import all_events, run_detail, stored_run
from serve_app.run_listing import PARAMETERS, cursor_after, run_filter
from serve_app.run_schemas import CreateRunRequest, RunDetail, RunList, RunMode, RunSummary
from serve_app.schemas import AnsweredRunRequest
from serve_app.services import Services

CREATE_ERRORS = (400, 401, 402, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507)

_DETAIL_PARAMETERS = {
    "log": "false leaves execution_log out",
    "state": "true adds the newest state and the checkpoints to fork from",
}


def run_routes(services: Services) -> APIRouter:
    """A client that goes away leaves its run alone, unless it said ``on_disconnect: cancel``."""
    router = APIRouter(tags=["runs"])

    @router.post(
        "/api/runs",
        summary="Make a run: in the background, waited for, or streamed",
        status_code=202,
        response_model=RunSummary,
        responses=error_answers(*CREATE_ERRORS, stream="the run's events, with mode stream"),
        openapi_extra=key_and(body_of(CreateRunRequest)),
    )
    async def create(request: Request) -> Response:
        body = await read_body(request, CreateRunRequest, services.config.max_body_bytes)
        return await create_run(services, request, body, body.answer_mode)

    @router.post(
        "/api/runs/stream",
        summary="Make a run and stream its events",
        responses=error_answers(*CREATE_ERRORS, stream="the run's events"),
        openapi_extra=key_and(body_of(CreateRunRequest)),
    )
    async def stream(request: Request) -> Response:
        body = await read_body(request, CreateRunRequest, services.config.max_body_bytes)
        return await create_run(services, request, body, "stream")

    @router.get(
        "/api/runs",
        summary="Runs, newest first",
        response_model=RunList,
        responses=error_answers(400, 401, 503),
        openapi_extra=query_of(PARAMETERS),
    )
    async def runs(request: Request) -> Response:
        wanted = run_filter(request.query_params)
        rows, cursor = await _page(services, wanted)
        return JSONResponse({"runs": rows, "next_cursor": cursor})

    @router.get(
        "/api/runs/{run_id}",
        summary="A run in full",
        response_model=RunDetail,
        responses=error_answers(400, 401, 404, 409, 503),
        openapi_extra=query_of(_DETAIL_PARAMETERS),
    )
    async def run(run_id: str, request: Request) -> Response:
        query = request.query_params
        check_known(query, tuple(_DETAIL_PARAMETERS))
        with_log, with_state = flag(query, "log", True), flag(query, "state", False)
        tenant = caller_of().tenant
        row = await stored_run(services.store, run_id, tenant)
        wants_events = with_log or row["result"] is None
        events = await all_events(services.store, run_id, tenant) if wants_events else []
        detail = run_detail(row, events, with_log)
        if with_state:
            flow = await pinned_flow(services.store, services.catalog, row)
            detail.update(await state_document(services.store, services.graphs, flow, run_id))
        return JSONResponse(detail)

    return router


async def create_run(
    services: Services, request: Request, body: AnsweredRunRequest, mode: RunMode
) -> Response:
    """A new run, answered as ``mode`` says."""
    facts = facts_of(request.scope)
    ask = RunAsk(
        request=body.run_request(),
        request_id=facts.request_id,
        traceparent=facts.traceparent,
        key=idempotency_key(request, body),
        caller=caller_of(),
    )
    return await new_run_answer(services, ask, mode)


async def _page(services: Services, wanted: RunFilter) -> tuple[list[dict[str, Any]], str | None]:
    # One more than asked for: whether there is a next page is known without another query.
    rows = await services.store.list(caller_of().tenant, replace(wanted, limit=wanted.limit + 1))
    more = len(rows) > wanted.limit
    rows = rows[: wanted.limit]
    return rows, cursor_after(rows[-1]["run_id"]) if more else None
