"""The scripted engine as an HTTP server that speaks the OpenAI protocol; for tests and benchmarks only.

``python -m actors.engines.scripted_server --port N --script FILE`` (YAML or JSON). POST /script replaces the
script while it runs, GET /script/state counts running, waiting, served and aborted calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml
from aiohttp import web

from actors.engines.script import Performance, Script, ScriptedFault, tokens_of
from actors.engines.scripted_cast import ScriptedCast, Spoken

_HTTP_FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "rate_limited": (429, {"code": "rate_limit_exceeded", "message": "Rate limit reached (scripted)"}),
    "auth": (401, {"code": "invalid_api_key", "message": "Incorrect API key provided (scripted)"}),
    "bad_response": (500, {"code": "server_error", "message": "The server had an error (scripted)"}),
    "content_policy": (400, {"code": "content_policy_violation", "message": "content policy (scripted)"}),
    "not_served": (404, {"code": "model_not_found", "message": "The model does not exist (scripted)"}),
    "context_window": (
        400,
        {"code": "context_length_exceeded", "message": "maximum context length (scripted)"},
    ),
}


class ScriptedServer:
    """``async with ScriptedServer(script) as server`` serves on a free port, at ``server.base_url``."""

    def __init__(self, script: Script | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.cast = ScriptedCast(script or Script())
        self.served = 0
        self.requests: list[dict[str, Any]] = []
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """What goes into ``base_url`` of a registry entry."""
        return f"http://{self._host}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/script", self._load)
        application.router.add_get("/script/state", self._state)
        self._runner = web.AppRunner(
            application, handler_cancellation=True, shutdown_timeout=1, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "owned_by": "scripted"} for name in self.cast.script.models]
        return web.json_response({"object": "list", "data": data})

    async def _load(self, request: web.Request) -> web.Response:
        try:
            self.cast.load(Script.model_validate(await request.json()))
        except (ValueError, pydantic.ValidationError) as error:
            return _refusal(400, {"code": "invalid_script", "message": str(error)})
        return web.json_response({"ok": True})

    async def _state(self, _: web.Request) -> web.Response:
        cast = self.cast
        return web.json_response(
            {"running": cast.running, "waiting": cast.waiting, "aborted": cast.aborted,
             "served": self.served, "calls": cast.player.calls}
        )  # fmt: skip

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            prompt = [m for m in body["messages"] if m["role"] == "user"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return _refusal(400, {"code": "invalid_request", "message": f"no chat request: {error}"})
        self.requests.append({**body, "headers": dict(request.headers)})
        text = prompt if isinstance(prompt, str) else prompt[0].get("text", "")
        size = sum(len(tokens_of(str(m["content"]))) for m in body["messages"])
        if size >= self.cast.script.context_window:
            window = self.cast.script.context_window
            words = f"maximum context length is {window} tokens, the prompt has {size}"
            return _refusal(400, {"code": "context_length_exceeded", "message": words})
        async with self.cast.slot():
            performance = self.cast.player.perform(text, body.get("seed"))
            return await self._perform(request, body, performance, size)

    async def _perform(
        self, request: web.Request, body: dict[str, Any], performance: Performance, size: int
    ) -> web.StreamResponse:
        fault = performance.fault
        if fault is not None and fault.kind not in ("stream_cut", "end_without_finish"):
            return await _fail(request, fault)
        if body.get("stream"):
            return await self._stream(request, body, performance, size)
        spoken = Spoken()
        async for _ in self._speech(body, performance, spoken):
            pass
        if fault is not None:
            return await _cut_whole(request)
        self.served += 1
        message = {"role": "assistant", "content": spoken.text}
        choice = {"index": 0, "message": message, "finish_reason": spoken.finish_reason}
        return web.json_response(_envelope(body, "chat.completion", [choice]) | _usage(size, spoken))

    def _speech(self, body: dict[str, Any], performance: Performance, spoken: Spoken):  # type: ignore[no-untyped-def]
        stop = body.get("stop") or []
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 1_000_000
        return self.cast.speak(performance, limit, (stop,) if isinstance(stop, str) else tuple(stop), spoken)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], performance: Performance, size: int
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        spoken, said = Spoken(), 0
        async with aclosing(self._speech(body, performance, spoken)) as pieces:
            async for text, tokens in pieces:
                if performance.fault is not None and said >= performance.fault.after_tokens:
                    break
                said += tokens
                await _event(response, _envelope(body, "chat.completion.chunk", [_delta({"content": text})]))
        if performance.fault is not None:
            return (
                response if performance.fault.kind == "end_without_finish" else await _cut(request, response)
            )
        await _event(response, _envelope(body, "chat.completion.chunk", [_delta({}, spoken.finish_reason)]))
        await _event(response, _envelope(body, "chat.completion.chunk", []) | _usage(size, spoken))
        await response.write(b"data: [DONE]\n\n")
        self.served += 1
        return response


async def _fail(request: web.Request, fault: ScriptedFault) -> web.StreamResponse:
    if fault.kind == "timeout":
        await asyncio.Event().wait()  # until the client goes away and the handler is cancelled
    if fault.kind == "refused":
        return await _cut(request)
    if fault.kind == "garbage":
        return web.Response(body=b"<html>not what you asked for", content_type="application/json")
    if fault.kind == "error_in_200":
        return web.json_response(
            {"error": {"code": "server_error", "message": "failed inside a 200 (scripted)"}}
        )
    status, error = _HTTP_FAULTS[fault.kind]
    headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
    return _refusal(status, error, headers)


async def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Drop the connection without a last word."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()


async def _cut_whole(request: web.Request) -> web.StreamResponse:
    """Promise a body, send half of it, drop the connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"id": "scripted", "choices": [{"message": {"content": "half an ans')
    return await _cut(request, response)


def _refusal(status: int, error: dict[str, str], headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {**error, "type": "scripted"}}, status=status, headers=headers)


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")


def _envelope(body: dict[str, Any], kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "scripted",
        "object": kind,
        "created": 0,
        "model": body.get("model", ""),
        "choices": choices,
    }


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}


def _usage(prompt: int, spoken: Spoken) -> dict[str, Any]:
    total = prompt + spoken.tokens
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": spoken.tokens, "total_tokens": total}}


async def _serve(host: str, port: int, script: Script) -> None:
    async with ScriptedServer(script, host, port) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted; prints the base URL first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    options = parser.parse_args()
    script = Script(echo=True)
    if options.script is not None:
        script = Script.model_validate(yaml.safe_load(options.script.read_text(encoding="utf-8")) or {})
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.host, options.port, script))


if __name__ == "__main__":
    main()
