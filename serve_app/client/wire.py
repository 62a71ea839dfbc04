"""Requests and answers without a network: what the two clients share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pydantic

from registries.contracts.errors import InternalError, ParleyError
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import RunEvent, RunRequest
from serve_app.client.answers import Readiness, chunk, generation_result, run_event
from serve_app.client.api_errors import NotRunning, error_from_answer, error_from_fact
from serve_app.client.connection import Connection
from serve_app.client.event_stream import EventStreamParser, StreamEvent

STREAM_HEADERS = {"accept": "text/event-stream"}
CONNECT_S = 5.0
SILENCE_S = 60.0
"""The server sends a heartbeat every 15 s; four missed ones mean that it is gone."""


def body_of(request: GenerationRequest | RunRequest, stream: bool) -> dict[str, Any]:
    """Only what was set: the server knows its own defaults."""
    return request.model_dump(mode="json", exclude_unset=True) | {"stream": stream}


def whole_timeout(connection: Connection) -> httpx.Timeout:
    """For one whole answer."""
    return httpx.Timeout(connection.timeout_s, connect=CONNECT_S)


def stream_timeout() -> httpx.Timeout:
    """For a stream: no limit on the whole, one on silence."""
    return httpx.Timeout(None, connect=CONNECT_S, read=SILENCE_S)


def parsed(response: httpx.Response) -> Any:
    """The JSON of a good answer; raises the error of a bad one."""
    if response.is_error:
        raise error_from_answer(response.status_code, response.headers, response.content)
    try:
        return response.json()
    except ValueError:
        raise InternalError(
            f"{response.request.url} answered no JSON; is it Parley that listens there?"
        ) from None


def readiness(response: httpx.Response) -> Readiness:
    """The report, whatever the status: a runtime that is loading answers 503 with it."""
    try:
        return Readiness.model_validate_json(response.content)
    except pydantic.ValidationError:
        parsed(response)
        raise InternalError(
            f"{response.request.url} answered no readiness; is it Parley that listens there?"
        ) from None


def flow_path(name: str) -> str:
    """The route of one flow."""
    return f"/api/flows/{quote(name, safe='')}"


def as_our_error(error: httpx.HTTPError, connection: Connection) -> ParleyError:
    """Transport faults: nobody there, or gone in the middle."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NotRunning(f"no runtime answers at {connection.base_url}. Start it with: parley up")
    if isinstance(error, httpx.TimeoutException):
        return NotRunning(f"the runtime at {connection.base_url} did not answer in time")
    return NotRunning(f"the connection to {connection.base_url} broke ({error.__class__.__name__})")


def generation_items(event: StreamEvent) -> Iterator[GenerationChunk | GenerationResult]:
    """What one event of a direct stream carries; raises its error."""
    data = _data(event)
    if event.type == "error":
        raise error_from_fact(data.get("error") or {})
    if event.type == "token":
        yield chunk(data)
    elif event.type == "result":
        yield generation_result(data)


def run_items(event: StreamEvent) -> Iterator[RunEvent]:
    """What one event of a run's stream carries; raises the stream's error (a failed run is an event)."""
    data = _data(event)
    if event.type == "error":
        raise error_from_fact(data.get("error") or {})
    if "run_id" in data:
        yield run_event(data)


def _data(event: StreamEvent) -> Mapping[str, Any]:
    try:
        data = json.loads(event.data)
    except ValueError:
        raise InternalError("the runtime sent an event that is no JSON") from None
    return data if isinstance(data, dict) else {}


def new_parser() -> EventStreamParser:
    """A parser for one stream."""
    return EventStreamParser()


def cut_off() -> ParleyError:
    """A stream that ended without its last event is never a success."""
    return NotRunning("the stream was cut off before its end; the run may go on at the runtime")
