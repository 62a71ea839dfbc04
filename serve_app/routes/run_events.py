"""GET /api/runs/{run_id}/events: a run's events as a stream that can be taken up again."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from registries.contracts.errors import ValidationError
from serve_app.caller import caller_of
from serve_app.openapi import error_answers, query_of
from serve_app.query import check_known, one_value
from serve_app.request_facts import facts_of
from serve_app.run_detail import stored_run
from serve_app.run_stream import RunStream
from serve_app.services import Services
from serve_app.streaming import RUN_FRAMES_AHEAD, run_frames, start_stream

MAX_SEQ_DIGITS = 18
"""More than any run's events have, and still a number to every database."""

_PARAMETERS = {
    "after": "events after this seq; the header Last-Event-ID says the same and wins",
    "until": "waiting: end when the run waits for a human, too",
}


def run_event_routes(services: Services) -> APIRouter:
    """Reading a run never changes it, whoever reads and leaves."""
    router = APIRouter(tags=["runs"])

    @router.get(
        "/api/runs/{run_id}/events",
        summary="A run's events: history, then live",
        responses=error_answers(400, 401, 404, 429, 503, stream="the run's events; id is their seq"),
        openapi_extra=query_of(_PARAMETERS),
    )
    async def events(run_id: str, request: Request) -> Response:
        query = request.query_params
        check_known(query, tuple(_PARAMETERS))
        until = one_value(query, "until")
        if until not in (None, "waiting"):
            raise ValidationError(f"until: {until!r} is not allowed; allowed: waiting", param="until")
        tenant = caller_of().tenant
        row = await stored_run(services.store, run_id, tenant)
        after = _after(request, row["last_seq"])
        stream = RunStream(
            services.store, services.runs.tail, run_id, tenant, after, until_waiting=until is not None
        )
        frames = run_frames(stream.batches())
        return await start_stream(frames, facts_of(request.scope).request_id, ahead=RUN_FRAMES_AHEAD)

    return router


def _after(request: Request, last_seq: int) -> int:
    """Where the reader is. Raises ValidationError for what this run cannot have told it."""
    header = request.headers.get("last-event-id")
    name = "after" if header is None else "Last-Event-ID"
    text = header if header is not None else one_value(request.query_params, "after")
    if text is None or text == "":
        return 0
    is_number = len(text) <= MAX_SEQ_DIGITS and text.isascii() and text.isdigit()
    if not is_number or int(text) > last_seq:
        shown = text if len(text) <= MAX_SEQ_DIGITS else f"{text[:MAX_SEQ_DIGITS]}…"
        raise ValidationError(
            f"{name}: {shown!r} is no event of this run; the last is {last_seq}", param=name
        )
    return int(text)
