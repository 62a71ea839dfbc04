"""A real HTTP server that answers what a test put there; the client and the commands talk to it over TCP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One response. ``cut`` ends the connection in the middle of the body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class FakeRuntime:
    """``answers`` by "METHOD /path", ``once`` goes before them; ``asked`` is what came in, body parsed."""

    answers: dict[str, Answer] = field(default_factory=dict)
    once: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def json(self, route: str, value: Any, status: int = 200, **headers: str) -> None:
        self.answers[route] = Answer(status, json.dumps(value).encode(), headers)

    def events(self, route: str, *events: tuple[str, Any], cut: bool = False) -> None:
        body = ": keep-alive\n\n" + "".join(f"event: {t}\ndata: {json.dumps(d)}\n\n" for t, d in events)
        self.answers[route] = Answer(
            body=body.encode(), headers={"content-type": "text/event-stream"}, cut=cut
        )


@contextmanager
def fake_runtime() -> Iterator[FakeRuntime]:
    """Serve on a free port of the loopback until the block ends."""
    fake = FakeRuntime()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.asked.append((f"{self.command} {self.path}", self.headers.get("x-api-key", ""), body))
            missing = {"error": {"code": "not_found", "message": f"there is no route {self.path}"}}
            route, unknown = f"{self.command} {self.path}", Answer(404, json.dumps(missing).encode())
            queued = fake.once.get(route)
            told = queued.pop(0) if queued else fake.answers.get(route, unknown)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(told.body) + (100 if told.cut else 0)))
            self.end_headers()
            self.wfile.write(told.body)
            self.close_connection = told.cut

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
