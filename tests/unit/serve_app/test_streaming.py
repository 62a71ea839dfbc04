from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from registries.contracts.errors import CapacityError
from serve_app.pumped_frames import PumpedFrames
from serve_app.sse import HEARTBEAT, frame
from serve_app.streaming import EventStream
from tests.unit.serve_app.front_door import until


class Source:
    """Frames, a gate before the last one, and whether it was closed, and where."""

    def __init__(self, frames: list[bytes], gate: asyncio.Event | None = None) -> None:
        self.frames = frames
        self.gate = gate
        self.tasks: set[Any] = set()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        self.tasks.add(asyncio.current_task())
        try:
            for index, data in enumerate(self.frames):
                if self.gate is not None and index == len(self.frames) - 1:
                    await self.gate.wait()
                yield data
                self.tasks.add(asyncio.current_task())
        finally:
            self.tasks.add(asyncio.current_task())
            self.closed = True


async def sent_by(stream: EventStream, sent: list[dict[str, Any]]) -> None:
    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    await stream({"type": "http"}, receive, send)


def body(sent: list[dict[str, Any]]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


def test_frames_follow_the_standard() -> None:
    assert frame("token", b"{}") == b"event: token\ndata: {}\n\n"
    assert frame("node.started", b"{}", 7) == b"event: node.started\nid: 7\ndata: {}\n\n"


async def test_a_silent_stream_beats() -> None:
    gate = asyncio.Event()
    source = Source([b"a", b"b"], gate)
    sent: list[dict[str, Any]] = []
    task = asyncio.create_task(sent_by(EventStream(PumpedFrames(source()), "r", heartbeat_s=0.01), sent))
    await until(lambda: body(sent).count(HEARTBEAT) >= 2)
    gate.set()
    await task
    assert body(sent).replace(HEARTBEAT, b"") == b"ab"
    assert sent[0]["status"] == 200 and sent[-1]["more_body"] is False


async def test_the_source_lives_and_ends_in_one_task() -> None:
    source = Source([b"a", b"b"], asyncio.Event())
    frames = PumpedFrames(source())
    await frames.begin(1.0)
    assert await anext(frames) == b"a"
    await frames.aclose()
    await frames.aclose()
    assert source.closed and len(source.tasks) == 1 and asyncio.current_task() not in source.tasks


async def test_patience_ends_and_the_error_comes_later() -> None:
    gate = asyncio.Event()

    async def late() -> AsyncGenerator[bytes, None]:
        await gate.wait()
        raise CapacityError("too late for a status")
        yield b""

    frames = PumpedFrames(late())
    await frames.begin(0.01)
    gate.set()
    sent: list[dict[str, Any]] = []
    await sent_by(EventStream(frames, "req-1"), sent)
    assert b"event: error" in body(sent) and b"req-1" in body(sent)


async def test_an_error_before_the_first_frame_is_raised() -> None:
    async def refusing() -> AsyncGenerator[bytes, None]:
        raise CapacityError("full")
        yield b""

    with pytest.raises(CapacityError):
        await PumpedFrames(refusing()).begin(1.0)


async def test_cancelling_the_wait_for_the_first_frame_closes_the_source() -> None:
    source = Source([b"a"], asyncio.Event())
    frames = PumpedFrames(source())
    waiting = asyncio.create_task(frames.begin(10.0))
    await until(lambda: len(source.tasks) == 1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert source.closed


@pytest.mark.parametrize("heartbeat_s", [15.0, 0.001])
async def test_a_client_that_takes_nothing_closes_the_source(heartbeat_s: float) -> None:
    source = Source([b"a", b"b"], asyncio.Event())

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    stream = EventStream(PumpedFrames(source()), "r", heartbeat_s, stalled_s=0.02)
    with pytest.raises(ClientDisconnect):
        await stream({"type": "http"}, receive, send)
    assert source.closed


async def test_a_client_that_cannot_be_sent_to_closes_the_source() -> None:
    source = Source([b"a", b"b"])

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    with pytest.raises(ClientDisconnect):
        await EventStream(PumpedFrames(source()), "r")({"type": "http"}, send, send)  # type: ignore[arg-type]
    assert source.closed
