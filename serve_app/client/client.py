"""The blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Client:
    """A running Parley. Finds address and key by itself; use it as a context manager.

    Every method raises errors of registries.contracts.errors, whose ``context`` has status and
    request_id, or NotRunning when nobody answers. Nothing is retried: ``retryable`` and
    ``retry_after_s`` say what a caller may do.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        connection: Connection | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.connection = connection or find_connection(base_url, api_key)
        self._http = httpx.Client(
            base_url=self.connection.base_url,
            headers=self.connection.headers,
            timeout=wire.whole_timeout(self.connection),
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    def inference(self, request: GenerationRequest) -> GenerationResult:
        """One model call."""
        return generation_result(self._post("/api/inference", wire.body_of(request, stream=False)))

    def stream_inference(self, request: GenerationRequest) -> Iterator[GenerationChunk | GenerationResult]:
        """Its chunks as they come, then the result. Closing the iterator stops the work."""
        body = wire.body_of(request, stream=True)
        yield from self._stream(
            "/api/inference", body, wire.generation_items, lambda item: isinstance(item, GenerationResult)
        )

    def run(self, request: RunRequest) -> RunResult:
        """One deliberation, whole. A failed run is a RunResult whose status says so."""
        return run_result(self._post("/api/orchestrate", wire.body_of(request, stream=False)))

    def stream_run(self, request: RunRequest) -> Iterator[RunEvent]:
        """Its events; the last one is terminal and carries the result."""
        body = wire.body_of(request, stream=True)
        yield from self._stream("/api/orchestrate", body, wire.run_items, lambda e: e.type in TERMINAL_EVENTS)

    def models(self) -> dict[str, Any]:
        """Registered models with their state, and the tiers."""
        return dict(self._get("/api/models"))

    def strategies(self) -> dict[str, Any]:
        """Registered strategies."""
        return dict(self._get("/api/strategies"))

    def flows(self) -> dict[str, Any]:
        """Registered flows."""
        return dict(self._get("/api/flows"))

    def flow(self, name: str) -> dict[str, Any]:
        """One flow in full, with its drawing."""
        return dict(self._get(wire.flow_path(name)))

    def ready(self, timeout_s: float | None = None) -> Readiness:
        """What is loaded, what is not, and why; also while it is not ready."""
        return wire.readiness(self._send("GET", "/api/ready", timeout_s=timeout_s))

    def system(self) -> dict[str, Any]:
        """Replicas, queues, breakers, machines."""
        return dict(self._get("/api/system"))

    def _get(self, path: str) -> Any:
        return wire.parsed(self._send("GET", path))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return wire.parsed(self._send("POST", path, body))

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s) if timeout_s else wire.whole_timeout(self.connection)
        try:
            return self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise wire.as_our_error(error, self.connection) from None

    def _stream(
        self,
        path: str,
        body: dict[str, Any],
        items: Callable[[StreamEvent], Iterator[T]],
        is_last: Callable[[T], bool],
    ) -> Iterator[T]:
        parser = wire.new_parser()
        options: dict[str, Any] = {"headers": wire.STREAM_HEADERS, "timeout": wire.stream_timeout()}
        try:
            with self._http.stream("POST", path, json=body, **options) as answer:
                if answer.is_error:
                    answer.read()
                    wire.parsed(answer)
                for piece in answer.iter_bytes():
                    for item in (item for event in parser.feed(piece) for item in items(event)):
                        yield item
                        if is_last(item):
                            return
        except httpx.HTTPError as error:
            raise wire.as_our_error(error, self.connection) from None
        raise wire.cut_off()
