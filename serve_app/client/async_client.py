"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from registries.contracts.runs import TERMINAL_EVENTS, RunEvent, RunRequest, RunResult
from serve_app.client import wire
from serve_app.client.answers import Readiness, generation_result, run_result
from serve_app.client.connection import Connection, find_connection
from serve_app.client.event_stream import StreamEvent

T = TypeVar("T")


class AsyncClient:
    """As Client, for asyncio: the same methods, errors and rules. Cancelling a call closes its connection."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        connection: Connection | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.connection = connection or find_connection(base_url, api_key)
        self._http = httpx.AsyncClient(
            base_url=self.connection.base_url,
            headers=self.connection.headers,
            timeout=wire.whole_timeout(self.connection),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._http.aclose()

    async def inference(self, request: GenerationRequest) -> GenerationResult:
        """One model call."""
        return generation_result(await self._post("/api/inference", wire.body_of(request, stream=False)))

    async def stream_inference(
        self, request: GenerationRequest
    ) -> AsyncIterator[GenerationChunk | GenerationResult]:
        """Its chunks as they come, then the result. Closing the iterator stops the work."""
        body = wire.body_of(request, stream=True)
        async for item in self._stream(
            "/api/inference", body, wire.generation_items, lambda item: isinstance(item, GenerationResult)
        ):
            yield item

    async def run(self, request: RunRequest) -> RunResult:
        """One deliberation, whole. A failed run is a RunResult whose status says so."""
        return run_result(await self._post("/api/orchestrate", wire.body_of(request, stream=False)))

    async def stream_run(self, request: RunRequest) -> AsyncIterator[RunEvent]:
        """Its events; the last one is terminal and carries the result."""
        body = wire.body_of(request, stream=True)
        async for event in self._stream(
            "/api/orchestrate", body, wire.run_items, lambda e: e.type in TERMINAL_EVENTS
        ):
            yield event

    async def models(self) -> dict[str, Any]:
        """Registered models with their state, and the tiers."""
        return dict(await self._get("/api/models"))

    async def strategies(self) -> dict[str, Any]:
        """Registered strategies."""
        return dict(await self._get("/api/strategies"))

    async def flows(self) -> dict[str, Any]:
        """Registered flows."""
        return dict(await self._get("/api/flows"))

    async def flow(self, name: str) -> dict[str, Any]:
        """One flow in full, with its drawing."""
        return dict(await self._get(wire.flow_path(name)))

    async def ready(self, timeout_s: float | None = None) -> Readiness:
        """What is loaded, what is not, and why; also while it is not ready."""
        return wire.readiness(await self._send("GET", "/api/ready", timeout_s=timeout_s))

    async def system(self) -> dict[str, Any]:
        """Replicas, queues, breakers, machines."""
        return dict(await self._get("/api/system"))

    async def _get(self, path: str) -> Any:
        return wire.parsed(await self._send("GET", path))

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        return wire.parsed(await self._send("POST", path, body))

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s) if timeout_s else wire.whole_timeout(self.connection)
        try:
            return await self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise wire.as_our_error(error, self.connection) from None

    async def _stream(
        self,
        path: str,
        body: dict[str, Any],
        items: Callable[[StreamEvent], Iterator[T]],
        is_last: Callable[[T], bool],
    ) -> AsyncIterator[T]:
        parser = wire.new_parser()
        options: dict[str, Any] = {"headers": wire.STREAM_HEADERS, "timeout": wire.stream_timeout()}
        try:
            async with self._http.stream("POST", path, json=body, **options) as answer:
                if answer.is_error:
                    await answer.aread()
                    wire.parsed(answer)
                async for piece in answer.aiter_bytes():
                    for item in (item for event in parser.feed(piece) for item in items(event)):
                        yield item
                        if is_last(item):
                            return
        except httpx.HTTPError as error:
            raise wire.as_our_error(error, self.connection) from None
        raise wire.cut_off()
