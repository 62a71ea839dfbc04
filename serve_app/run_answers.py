"""The three ways to answer about a run: at once, at its end, or with its events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from actors.stores.json_text import dump_json
from actors.stores.records import Accepted
from serve_app.idempotency import REPLAYED
from serve_app.run_ask import Attended, RunAsk
from serve_app.run_detail import stored_run
from serve_app.run_schemas import RunLinks, RunMode, RunSummary
from serve_app.run_stream import RunStream
from serve_app.services import Services
from serve_app.streaming import RUN_FRAMES_AHEAD, run_frames, start_stream


async def new_run_answer(services: Services, ask: RunAsk, mode: RunMode) -> Response:
    """A new run, or the one that its key had made, answered as ``mode`` says. Raises as RunDispatch does."""
    if mode != "background":
        attended = await services.runs.begin(ask, streams=mode == "stream")
        return await _attended_answer(services, attended, mode, ask)
    now = services.clock.time()
    accepted = await services.runs.enqueue(ask)
    if not accepted.created:
        row = await stored_run(services.store, accepted.run_id, ask.caller.tenant)
        return _summary_answer(row, replayed=True)
    flow = ask.fork.flow if ask.fork else services.catalog.flows.get(ask.request.flow_type)
    facts = {
        "run_id": accepted.run_id,
        "status": accepted.status,
        "flow": flow.name,
        "flow_version": flow.version,
        "created_at": now,
        "parent": ask.fork.parent if ask.fork else None,
    }
    return _summary_answer(facts)


async def queued_again_answer(
    services: Services,
    queue_again: Callable[[], Awaitable[Accepted]],
    row: Mapping[str, Any],
    ask: RunAsk,
    deadline_s: float,
    mode: RunMode,
) -> Response:
    """A run that ``queue_again`` restarts or resumes, answered as ``mode`` says.

    ``row`` is what it was before. Raises as RunDispatch.go_on does.
    """
    if mode != "background":
        attended = await services.runs.go_on(queue_again, ask, deadline_s, streams=mode == "stream")
        return await _attended_answer(services, attended, mode, ask)
    accepted = await queue_again()
    if accepted.created:
        services.runs.wake()
    return _summary_answer({**row, "status": accepted.status}, replayed=not accepted.created)


def _summary_answer(facts: Mapping[str, Any], replayed: bool = False) -> Response:
    """202 with the RunSummary of ``facts`` (run_id, status, flow, flow_version, created_at, parent)."""
    path = f"/api/runs/{facts['run_id']}"
    links = RunLinks(self=path, events=f"{path}/events", cancel=f"{path}/cancel")
    shown = {name: facts.get(name) for name in RunSummary.model_fields if name != "links"}
    summary = RunSummary.model_validate({**shown, "links": links})
    return Response(
        summary.model_dump_json().encode(),
        status_code=202,
        headers={"location": path, **(REPLAYED if replayed else {})},
        media_type="application/json",
    )


async def _attended_answer(services: Services, attended: Attended, mode: RunMode, ask: RunAsk) -> Response:
    """The run's result, or its events as they come.

    A run that failed is an answer too: it has nodes, usage and an artifact. Raises the error of a run that
    never began, and BudgetError when its end cannot be waited for any longer.
    """
    live, replayed = attended
    headers = REPLAYED if replayed else {}
    if mode == "stream":
        # Its 200 says that the run is committed, as every event does: it comes with the first of them.
        frames = _frames(services, attended)
        return await start_stream(frames, ask.request_id, headers, RUN_FRAMES_AHEAD, patience_s=None)
    try:
        result = (await live.settled()).data["result"]
    finally:
        services.runs.leave(live)
    return Response(dump_json(result), media_type="application/json", headers=headers)


async def _frames(services: Services, attended: Attended) -> AsyncGenerator[bytes, None]:
    live = attended.live
    stream = RunStream(
        services.store,
        services.runs.tail,
        live.run_id,
        live.caller.tenant,
        # Who repeats a request gets the whole, whoever else the run goes on for here.
        0 if attended.replayed else live.after,
        until_waiting=True,
        reader=live.reader(),
        begun_at=None if attended.replayed else live.begun_at,
    )
    try:
        async with aclosing(run_frames(stream.batches())) as frames:
            async for data in frames:
                yield data
    finally:
        services.runs.leave(live)
