"""One call of the API as data: what is sent, and how the answer is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import httpx

from serve_app.client.event_stream import StreamEvent
from serve_app.client.sendable import check_body, check_params, header_value

T = TypeVar("T")
IDEMPOTENCY_KEY = "idempotency-key"
REPLAYED = "idempotency-replayed"
"""The header of an answer about what an earlier request with the same key made: "true"."""


@dataclass(frozen=True, slots=True)
class Request:
    """``deadline_s`` is what the work itself may take, where the caller said so.

    Raises ValidationError for a body or parameters that cannot be sent.
    """

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        check_params(self.params)
        check_body(self.body or {})


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request with one whole answer. ``read`` raises the error of a bad one."""

    request: Request
    read: Callable[[httpx.Response], T]
    timeout_s: float | None = None
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[T]):
    """A request that is answered by server-sent events; ``items`` raises the error that one carries.

    ``replays_history``: an answer to a key that was used before tells what happened meanwhile, too. There no
    item is the last by itself, and the stream is over when the server ends it.
    """

    request: Request
    items: Callable[[StreamEvent], Iterator[T]]
    is_last: Callable[[T], bool]
    replays_history: bool = False


def get(path: str, **params: Any) -> Request:
    """A question; parameters that are None are left out."""
    return Request("GET", path, params={name: value for name, value in params.items() if value is not None})


def post(
    path: str, body: Mapping[str, Any], key: str | None = None, deadline_s: float | None = None
) -> Request:
    """An order. Its Idempotency-Key is made here, once, so that every repetition of it carries the same."""
    headers = keyed(str(uuid.uuid4()) if key is None else key)
    return Request("POST", path, body, {}, headers, deadline_s)


def keyed(key: str) -> Mapping[str, str]:
    """The header of an Idempotency-Key; raises ValidationError for one that no header can carry."""
    return {IDEMPOTENCY_KEY: header_value(key, "idempotency_key")}
