"""The real HTTP API behind a real server and a proxy that can be cut: live streams outlive both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from registries.contracts.runs import RunEvent, RunRequest
from serve_app.client import AsyncClient, Client, Connection, Retries
from tests.unit.serve_app.front_door import KEY, FrontDoor, front_door, until

ASK = RunRequest(prompt="What is 48 + 37?", flow_type="challenge")
SOON = Retries(base_s=0.02, max_wait_s=0.05, patience_s=20)


class Proxy:
    """Forwards TCP. ``cut`` resets every connection; while it is ``away`` new ones are refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.attached = 0

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def away(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def aclose(self) -> None:
        await self.away()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self.connections += 1
        self.attached += 1
        self._open |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)
            if source is reader:
                task.add_done_callback(self._left)

    def _left(self, _: asyncio.Task[None]) -> None:
        self.attached -= 1

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(4096):
                sink.write(piece)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[FrontDoor, Proxy]]:
    async with front_door() as door:
        config = uvicorn.Config(
            door.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        proxy = Proxy(server.servers[0].sockets[0].getsockname()[1])
        await proxy.listen()
        try:
            yield door, proxy
        finally:
            await proxy.aclose()
            server.should_exit = True
            await serving


async def read(source: Any, into: list[RunEvent]) -> None:
    async for event in source:
        into.append(event)


def durable(events: list[RunEvent]) -> list[int]:
    return [event.seq for event in events if event.type != "node.token"]


@pytest.mark.parametrize("method", ["stream_run", "events"])
async def test_a_live_stream_goes_on_where_it_was_cut(method: str) -> None:
    async with served() as (door, proxy):
        door.runner.gate, door.runner.works_when_woken = asyncio.Event(), True
        here = Connection(f"http://127.0.0.1:{proxy.port}", KEY)
        tries: list[int] = []
        retries = replace(SOON, on_reattach=lambda error, wait_s, number: tries.append(number))
        async with AsyncClient(connection=here, retries=retries) as client:
            made = await client.create_run(ASK) if method == "events" else None
            source = client.stream_run(ASK) if made is None else client.events(made.run_id)
            told: list[RunEvent] = []
            reading = asyncio.create_task(read(source, told))
            await until(lambda: len(durable(told)) >= 3)
            for _ in range(3):
                before = proxy.connections
                await proxy.away()
                tries.clear()
                await until(lambda: len(tries) >= 2)
                await proxy.listen()
                await until(lambda at=before: proxy.connections > at)
            assert not reading.done(), "the run goes on, and so does its reader"
            door.runner.gate.set()
            await asyncio.wait_for(reading, 10)
        assert durable(told) == [1, 2, 3, 4, 5] and told[-1].type == "run.completed"
        assert len(await door.rows()) == 1


async def test_the_blocking_client_does_the_same() -> None:
    async with served() as (door, proxy):
        door.runner.gate = asyncio.Event()
        told: list[RunEvent] = []

        def watch() -> None:
            here = Connection(f"http://127.0.0.1:{proxy.port}", KEY)
            with Client(connection=here, retries=SOON) as client:
                for event in client.stream_run(ASK):
                    told.append(event)

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await until(lambda: len(durable(told)) >= 3)
        before = proxy.connections
        proxy.cut()
        await until(lambda: proxy.connections > before)
        door.runner.gate.set()
        await asyncio.wait_for(watching, 10)
        assert durable(told) == [1, 2, 3, 4, 5]


async def test_an_iterator_that_is_closed_closes_its_connection() -> None:
    async with served() as (door, proxy):
        door.runner.gate = asyncio.Event()
        here = Connection(f"http://127.0.0.1:{proxy.port}", KEY)
        async with AsyncClient(connection=here, retries=SOON) as client:
            events = client.stream_run(ASK)
            async for event in events:
                if event.type == "node.started":
                    break
            assert proxy.attached == 1
            await events.aclose()
            await until(lambda: proxy.attached == 0)
        door.runner.gate.set()
        await until(lambda: door.dispatch.live == 0)
        assert (await door.row())["status"] == "completed", "it was left, not ended"
