"""A runtime behind a bad network: it has one run's events, and every connection to it may break."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from registries.contracts.runs import TERMINAL_EVENTS, RunEvent

RESTING = TERMINAL_EVENTS | {"run.waiting"}
Trouble = Literal["torn", "ended", "refused", "silent", "restarting", "full", "repeated", "gap"]


@dataclass
class TornNetwork:
    """Answers GET …/events and the POST that makes the run.

    ``plan`` is what happens to one connection after the other: its trouble, and the share of the bytes that
    arrive before it. After the plan all is well. ``asked`` is each request: method, path, Last-Event-ID and
    Idempotency-Key. ``replayed``: the run was made by an earlier request with the same key.
    """

    story: Sequence[RunEvent]
    plan: Sequence[tuple[Trouble, float]] = ()
    asked: list[tuple[str, str, int | None, str | None]] = field(default_factory=list)
    replayed: bool = False

    @property
    def durable(self) -> list[RunEvent]:
        return [event for event in self.story if event.type != "node.token"]

    def transport(self) -> httpx.MockTransport:
        """For both kinds of client."""
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        after = int(request.headers.get("last-event-id", 0))
        named = after if request.method == "GET" else None
        key = request.headers.get("idempotency-key")
        self.asked.append((request.method, request.url.path, named, key))
        at = len(self.asked) - 1
        trouble, share = self.plan[at] if at < len(self.plan) else (None, 1.0)
        if trouble == "refused":
            raise httpx.ConnectError("refused", request=request)
        if trouble == "silent":
            raise httpx.ReadTimeout("silent", request=request)
        if trouble == "restarting":
            return httpx.Response(503, text="<html>restarting</html>")
        if trouble == "full":
            return httpx.Response(429, json={"error": {"code": "capacity", "message": "full"}})
        events = self._told(after if trouble != "repeated" else 0, skip=trouble == "gap")
        whole = b": keep-alive\n\n" + b"".join(frame(event) for event in events)
        body = whole
        if trouble in ("torn", "ended"):
            body = whole[: int(len(whole) * share)]
            # A regular end right after an end, or before anything came, says "over": no bad luck looks so.
            ends = [frame(e) for e in events if e.type in RESTING and e is not self.story[-1]]
            if trouble == "ended" and b"event:" not in body:
                body = whole[:1]
            elif trouble == "ended" and any(body.endswith(end) for end in ends):
                body = body[:-1]
        headers = {"idempotency-replayed": "true"} if self.replayed and request.method == "POST" else {}
        return httpx.Response(200, headers=headers, stream=Bytes(body, torn=trouble == "torn"))

    def _told(self, after: int, skip: bool) -> list[RunEvent]:
        told = [e for e in self.story if e.seq > after or (e.type == "node.token" and e.seq >= after > 0)]
        if skip:
            first = next((e for e in told if e.type != "node.token" and e is not self.story[-1]), None)
            told = [e for e in told if e is not first]
        return told


class Bytes(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in small pieces; ``torn`` breaks the connection after it."""

    def __init__(self, body: bytes, torn: bool) -> None:
        self._body, self._torn = body, torn

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._body), 41):
            yield self._body[at : at + 41]
        if self._torn:
            raise httpx.ReadError("torn")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def frame(event: RunEvent) -> bytes:
    data = json.dumps(event.model_dump(mode="json"))
    return f"event: {event.type}\nid: {event.seq}\ndata: {data}\n\n".encode()


def story(
    nodes: Sequence[int], end: str = "run.completed", waits: bool = False, fails: bool = False
) -> list[RunEvent]:
    """A run whose nodes say so many tokens; one ``fails`` and is restarted, one ``waits`` and is resumed."""
    seq, told = 0, []

    def tell(type_: str, node: str | None = None, **data: Any) -> None:
        nonlocal seq
        seq += type_ != "node.token"
        values = {"run_id": "run-1", "seq": seq, "time": 1.0, "type": type_, "node": node, "data": data}
        told.append(RunEvent.model_validate(values))

    tell("run.queued")
    tell("run.started")
    for number, tokens in enumerate(nodes):
        tell("node.started", f"n{number}")
        for token in range(tokens):
            tell("node.token", f"n{number}", text=f"{token}\u2028 ", visit=1)
        tell("node.completed", f"n{number}")
    if waits:
        tell("run.waiting", "gate")
        tell("run.resumed", "gate")
    if fails:
        tell("run.failed")
        tell("run.restarted")
    tell(end)
    return told
