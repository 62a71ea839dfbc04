"""What the middleware found out about a request, for the routes behind it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

SCOPE_KEY = "parley"
# Printable, no spaces, no quotes: what tracing systems send, and nothing that could forge a log line.
_SANE_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:/+=@-]{1,128}$")
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(rb"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


@dataclass(slots=True)
class RequestFacts:
    """One request's identity. ``authenticated`` is set by the Authentication middleware alone."""

    request_id: str
    traceparent: str | None = None
    authenticated: bool = False


def read_request_facts(headers: Iterable[tuple[bytes, bytes]]) -> RequestFacts:
    """Facts from ASGI headers; a missing or unreasonable X-Request-ID is replaced by a new one."""
    request_id: str | None = None
    traceparent: str | None = None
    for name, value in headers:
        if name == b"x-request-id" and _SANE_REQUEST_ID.match(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent" and _TRACEPARENT.match(value):
            traceparent = value.decode("ascii")
    return RequestFacts(request_id or uuid.uuid4().hex, traceparent)


def facts_of(scope: MutableMapping[str, Any]) -> RequestFacts:
    """The facts that the Envelope middleware put into the ASGI scope."""
    facts: RequestFacts = scope[SCOPE_KEY]
    return facts
