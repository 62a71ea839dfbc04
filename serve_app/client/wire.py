"""What goes over the network and comes back, without a network: what the two clients share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import httpx
import pydantic

from registries.contracts.errors import InternalError, ParleyError
from registries.contracts.generation import GenerationChunk, GenerationResult
from registries.contracts.runs import RunEvent
from serve_app.client.answers import Readiness, chunk, generation_result, run_event
from serve_app.client.api_errors import (
    AnswerLate,
    NotRunning,
    StreamCut,
    StreamEnded,
    error_from_answer,
    error_from_fact,
)
from serve_app.client.call import REPLAYED, Call, Request, StreamCall
from serve_app.client.connection import Connection
from serve_app.client.event_stream import EventStreamParser, StreamEvent

STREAM_HEADERS = {"accept": "text/event-stream"}
CONNECT_S = 5.0
SILENCE_S = 60.0
"""The server sends a heartbeat every 15 s; four missed ones mean that it is gone."""
DEADLINE_GRACE_S = 30.0
"""Past a run's own deadline the runtime still writes its end and answers."""

T = TypeVar("T")


def client_options(connection: Connection) -> dict[str, Any]:
    """How both kinds of connection pool are set up."""
    return {
        "base_url": connection.base_url,
        "headers": connection.headers,
        "timeout": httpx.Timeout(connection.timeout_s, connect=CONNECT_S),
        "trust_env": False,
    }


def whole_s(call: Call[Any], connection: Connection) -> float:
    """Seconds for one whole answer: work that may take longer than the usual timeout gets its time."""
    if call.timeout_s is not None:
        return call.timeout_s
    deadline_s = call.request.deadline_s
    return max(connection.timeout_s, deadline_s + DEADLINE_GRACE_S) if deadline_s else connection.timeout_s


def whole_options(call: Call[Any], connection: Connection) -> dict[str, Any]:
    """Of a request with one whole answer."""
    limit_s = whole_s(call, connection)
    return _options(call.request) | {"timeout": httpx.Timeout(limit_s, connect=min(CONNECT_S, limit_s))}


def stream_options(request: Request) -> dict[str, Any]:
    """Of a stream: no limit on the whole, one on silence."""
    options = _options(request) | {"timeout": httpx.Timeout(None, connect=CONNECT_S, read=SILENCE_S)}
    return options | {"headers": {**request.headers, **STREAM_HEADERS}}


def _options(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params),
        "headers": dict(request.headers),
        "json": request.body,
    }


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


def as_our_error(
    error: httpx.HTTPError | ParleyError, connection: Connection, opened: bool = False
) -> ParleyError:
    """Transport faults: nobody there, or gone in the middle. Ours stay as they are."""
    if isinstance(error, ParleyError):
        return error
    place = f"the runtime at {connection.base_url}"
    if opened:
        return StreamCut(f"the connection to {place} broke ({error.__class__.__name__})")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NotRunning(f"no runtime answers at {connection.base_url}. Start it with: parley up")
    if isinstance(error, httpx.TimeoutException):
        return AnswerLate(f"{place} did not answer in time")
    return NotRunning(f"the connection to {place} broke ({error.__class__.__name__})")


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


class StreamReader(Generic[T]):
    """One stream's bytes to its items; knows whether the stream had begun and whether it is whole."""

    def __init__(self, call: StreamCall[T]) -> None:
        self.request = call.request
        self.opened = False
        self.ended = False
        self._call = call
        self._is_history = False
        self._parser = EventStreamParser()

    def open(self, response: httpx.Response) -> None:
        """The head is there; raises the error of a bad answer, whose body must have been read."""
        if response.is_error:
            parsed(response)
        self.opened = True
        self._is_history = self._call.replays_history and response.headers.get(REPLAYED) == "true"

    def take(self, piece: bytes) -> Iterator[T]:
        """The items that this piece completes; none after the last."""
        for event in self._parser.feed(piece):
            for item in self._call.items(event):
                self.ended = not self._is_history and self._call.is_last(item)
                yield item
                if self.ended:
                    return

    def close(self) -> None:
        """The bytes are over: a stream that ended without its last event is never a success."""
        if not self.ended:
            kind = StreamEnded if self._parser.is_between_events else StreamCut
            raise kind("the stream was cut off before its end; the run may go on at the runtime")
