"""Servers that answer as only some do, one handler a test."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str, None]:
    application = web.Application()
    application.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def aborted(request: web.Request) -> web.Response:
    """vLLM's own server, when a request is aborted from its side."""
    if not (await request.json()).get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "half"}, "finish_reason": "abort"}
        return web.json_response({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]})
    chunk = {"id": "x", "object": "chat.completion.chunk", "model": "m"}
    deltas = [({"content": "half"}, None), ({}, "abort")]
    events = [
        {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas
    ]
    text = "".join(f"data: {json.dumps(item)}\n\n" for item in events) + "data: [DONE]\n\n"
    return web.Response(text=text, content_type="text/event-stream")
