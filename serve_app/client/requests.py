"""Every method of the clients as data: which request it is, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import SETTLED_EVENTS, RunEvent, RunRequest, RunResult
from serve_app.client import wire
from serve_app.client.answers import (
    GivenFeedback,
    HealthScore,
    Readiness,
    RunDetail,
    RunFilters,
    RunPage,
    RunState,
    RunSummary,
    SystemFacts,
    generation_result,
    run_result,
    tolerant,
)
from serve_app.client.call import Call, Request, StreamCall, get, keyed, post
from serve_app.client.catalogue import FlowDetail, FlowList, ModelList, StrategyList
from serve_app.client.sendable import path_segment
from serve_app.client.statistics import Dashboard, Statistics

Answer = TypeVar("Answer", bound=BaseModel)
Document = dict[str, Any]


def inference(request: GenerationRequest, key: str | None) -> Call[GenerationResult]:
    """POST /api/inference."""
    order = _model_call(body_of(request, stream=False), key, request.deadline_s)
    return Call(order, lambda answer: generation_result(wire.parsed(answer)))


def stream_inference(
    request: GenerationRequest, key: str | None
) -> StreamCall[GenerationChunk | GenerationResult]:
    """POST /api/inference, as a stream."""
    order = _model_call(body_of(request, stream=True), key, request.deadline_s)
    return StreamCall(order, wire.generation_items, lambda item: isinstance(item, GenerationResult))


def run(request: RunRequest, key: str | None) -> Call[RunResult]:
    """POST /api/orchestrate."""
    order = post("/api/orchestrate", body_of(request, stream=False), key, request.deadline_s)
    return Call(order, lambda answer: run_result(wire.parsed(answer)))


def stream_run(request: RunRequest, key: str | None) -> StreamCall[RunEvent]:
    """POST /api/orchestrate, as a stream: to its end, or until it waits for a human."""
    order = post("/api/orchestrate", body_of(request, stream=True), key, request.deadline_s)
    return StreamCall(order, wire.run_items, lambda event: event.type in SETTLED_EVENTS, replays_history=True)


def create_run(request: RunRequest, key: str | None) -> Call[RunSummary]:
    """POST /api/runs, in the background."""
    body = request.model_dump(mode="json", exclude_unset=True) | {"mode": "background"}
    return _typed(post("/api/runs", body, key), RunSummary)


def runs(cursor: str | None, filters: RunFilters) -> Call[RunPage]:
    """GET /api/runs."""
    given: Document = {**filters, "cursor": cursor}
    if isinstance(given.get("status"), tuple | list):
        given["status"] = ",".join(given["status"]) or None
    return _typed(get("/api/runs", **given), RunPage)


def get_run(run_id: str, log: bool, state: bool) -> Call[RunDetail]:
    """GET /api/runs/{run_id}."""
    return _typed(get(_run_path(run_id), log=log, state=state), RunDetail)


def events(run_id: str, after: int, until: Literal["end", "waiting"]) -> StreamCall[RunEvent]:
    """GET /api/runs/{run_id}/events, after one that was seen.

    None of its events is the last by itself: a restarted run has an end in its past.
    """
    path, pause = _run_path(run_id, "events"), "waiting" if until == "waiting" else None
    asked = get(path, until=pause)
    question = Request(asked.method, path, params=asked.params, headers={"last-event-id": str(after)})
    return StreamCall(question, wire.run_items, lambda event: False)


def cancel_run(run_id: str, key: str | None) -> Call[RunState]:
    """POST /api/runs/{run_id}/cancel."""
    return _typed(post(_run_path(run_id, "cancel"), {}, key), RunState)


def restart_run(run_id: str, deadline_s: float | None, key: str | None) -> Call[RunSummary]:
    """POST /api/runs/{run_id}/restart."""
    return _typed(post(_run_path(run_id, "restart"), _given(deadline_s=deadline_s), key), RunSummary)


def fork_run(
    run_id: str,
    checkpoint_id: str | None,
    state: Mapping[str, Any] | None,
    request: Mapping[str, Any] | None,
    key: str | None,
) -> Call[RunSummary]:
    """POST /api/runs/{run_id}/fork."""
    body = _given(checkpoint_id=checkpoint_id, state=state, request=request)
    return _typed(post(_run_path(run_id, "fork"), body, key), RunSummary)


def resume_run(
    run_id: str,
    action: str,
    text: str | None,
    comment: str | None,
    deadline_s: float | None,
    interrupt_id: str | None,
    key: str | None,
) -> Call[RunSummary]:
    """POST /api/runs/{run_id}/resume."""
    body = _given(action=action, text=text, comment=comment, deadline_s=deadline_s, interrupt_id=interrupt_id)
    return _typed(post(_run_path(run_id, "resume"), body, key), RunSummary)


def give_feedback(run_id: str, rating: float, comment: str | None, key: str | None) -> Call[GivenFeedback]:
    """POST /api/runs/{run_id}/feedback."""
    body = _given(rating=rating, comment=comment)
    return _typed(post(_run_path(run_id, "feedback"), body, key), GivenFeedback)


def stats(hours: float, user: str | None) -> Call[Statistics]:
    """GET /api/stats."""
    return _document(get("/api/stats", hours=hours, user=user), Statistics)


def user_stats(user: str, hours: float) -> Call[Dashboard]:
    """GET /api/stats/users/{user}."""
    path = f"/api/stats/users/{path_segment(user, 'user', 'the name of a user')}"
    return _document(get(path, hours=hours), Dashboard)


def health_score(hours: float) -> Call[HealthScore]:
    """GET /api/stats/health."""
    return _typed(get("/api/stats/health", hours=hours), HealthScore)


def models() -> Call[ModelList]:
    """GET /api/models."""
    return _document(get("/api/models"), ModelList)


def strategies() -> Call[StrategyList]:
    """GET /api/strategies."""
    return _document(get("/api/strategies"), StrategyList)


def flows() -> Call[FlowList]:
    """GET /api/flows."""
    return _document(get("/api/flows"), FlowList)


def flow(name: str) -> Call[FlowDetail]:
    """GET /api/flows/{name}."""
    return _document(get(f"/api/flows/{path_segment(name, 'name', 'the name of a flow')}"), FlowDetail)


def system() -> Call[SystemFacts]:
    """GET /api/system."""
    return _document(get("/api/system"), SystemFacts)


def ready(timeout_s: float | None) -> Call[Readiness]:
    """GET /api/ready. Not repeated: "not yet" is an answer, and whoever waits for another asks again."""
    return Call(get("/api/ready"), wire.readiness, timeout_s, repeatable=False)


def body_of(request: GenerationRequest | RunRequest, stream: bool) -> Document:
    """Only what was set: the server knows its own defaults."""
    return request.model_dump(mode="json", exclude_unset=True) | {"stream": stream}


def _run_path(run_id: str, part: str = "") -> str:
    return f"/api/runs/{path_segment(run_id, 'run_id', 'the id of a run')}" + (f"/{part}" if part else "")


def _given(**values: Any) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def _typed(request: Request, model: type[Answer]) -> Call[Answer]:
    return Call(request, lambda answer: tolerant(model, wire.parsed(answer)))


def _document(request: Request, model: type[Answer]) -> Call[Answer]:
    """What newer runtimes add to it is kept: who prints a document prints all of it."""
    return Call(request, lambda answer: tolerant(model, wire.parsed(answer), extra="allow"))


def _model_call(body: Mapping[str, Any], key: str | None, deadline_s: float | None) -> Request:
    """Without a key of its own: with one, the call would outlive its client, and its answer be stored."""
    return Request("POST", "/api/inference", body, {}, {} if key is None else keyed(key), deadline_s)
