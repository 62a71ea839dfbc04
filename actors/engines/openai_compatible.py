"""Any server that speaks the OpenAI protocol: OpenAI itself, another vLLM, Ollama, llama.cpp, a proxy."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

import aiohttp
import certifi

from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight, Ticket
from actors.engines.openai_faults import provider_failure
from actors.engines.openai_protocol import Tally, parse_completion, parse_json, request_body
from actors.engines.sse import SseDecoder
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult, EngineStats
from registries.contracts.errors import Fault, ProviderError, ValidationError
from registries.contracts.generation import GenerationChunk
from registries.specs import ModelSpec

T = TypeVar("T")

# Seconds; engine_options of the same names override them. The total is the call's own deadline.
TIMEOUTS = {"connect_timeout_s": 5.0, "first_token_timeout_s": 120.0, "chunk_timeout_s": 60.0}
_OPTIONS = frozenset(TIMEOUTS) | {"max_tokens_field", "headers", "script"}
_MAX_BODY_BYTES = 32 * 1024 * 1024


class OpenAICompatibleEngine:
    """One endpoint over one shared HTTP session.

    Redirects are not followed, since they would carry the key elsewhere; certificates are checked against
    certifi's bundle, which drops broken authorities sooner than systems do.
    """

    def __init__(self, spec: ModelSpec, config: RuntimeConfig) -> None:
        unknown = sorted(set(spec.engine_options) - _OPTIONS)
        if unknown:
            raise ValidationError(
                f"model {spec.key}: engine_options {unknown} are unknown; allowed: {sorted(_OPTIONS)}",
                "engine_options",
            )
        self.spec = spec
        self._key = config.provider_keys.get(spec.api_key_env or "", "")
        self._url = f"{(spec.base_url or '').rstrip('/')}/"
        self._limits = {name: float(spec.engine_options.get(name, value)) for name, value in TIMEOUTS.items()}
        self._calls = InFlight(f"model {spec.key}")
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the session; nothing is asked of the server yet."""
        if self._session is not None:
            return
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        headers |= dict(self.spec.engine_options.get("headers", {}))
        context = ssl.create_default_context(cafile=certifi.where())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits["connect_timeout_s"]),
            headers=headers,
            trust_env=False,
        )

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer, in one response."""
        deadline = Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            response = await self._post(call, False, ticket, deadline)
            async with response:
                body = _whole_body(response)
                # A short answer comes with its head: it is read without a timer, as nothing is waited for.
                if not (response.content.is_eof() and response.content.exception() is None):
                    body = self._patiently(body, ticket, deadline, "first_token_timeout_s", "its answer")
                raw = await body
            answer = parse_json(raw, self.spec.provider, call.model)
            return parse_completion(answer, self.spec.provider, call.model, call)

    async def stream(self, call: EngineCall) -> AsyncGenerator[GenerationChunk | EngineResult, None]:
        """Chunks as they arrive; a stream without its last event is stream_cut, never a success."""
        started, deadline = time.monotonic(), Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            response = await self._post(call, True, ticket, deadline)
            async with response:
                tally, first = Tally(call), None
                events = self._events(response, ticket, deadline, call.model)
                try:
                    async for event in events:
                        piece = tally.take(event, self.spec.provider)
                        if piece:
                            first = time.monotonic() - started if first is None else first
                            yield GenerationChunk(text=piece, tokens=1)
                finally:
                    await events.aclose()
            if tally.finish_reason is None:
                raise self._cut(call.model, "ended without its last event")
            yield tally.result(first)

    async def _post(
        self, call: EngineCall, stream: bool, ticket: Ticket, deadline: Deadline
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise ProviderError(
                f"{self.spec.key} is not started", Fault.REFUSED, self.spec.provider, call.model
            )
        if self.spec.api_key_env and not self._key:
            raise ProviderError(
                f"{self.spec.api_key_env} is not set", Fault.AUTH, self.spec.provider, call.model
            )
        body = request_body(call, stream, str(self.spec.engine_options.get("max_tokens_field", "max_tokens")))
        headers = {"X-Request-ID": call.request_id} | (
            {"traceparent": call.traceparent} if call.traceparent else {}
        )
        posting = self._session.post(
            f"{self._url}chat/completions", json=body, headers=headers, allow_redirects=False
        )
        response = await self._patiently(
            _started(posting), ticket, deadline, "first_token_timeout_s", "the first byte"
        )
        if response.status == 200:
            return response
        async with response:
            raw = await self._patiently(
                _whole_body(response), ticket, deadline, "chunk_timeout_s", "its error"
            )
        raise provider_failure(
            self.spec.provider, call.model, response.status, _json_or_text(raw), response.headers
        )

    async def _events(
        self, response: aiohttp.ClientResponse, ticket: Ticket, deadline: Deadline, model: str
    ) -> AsyncGenerator[Any, None]:
        if "json" in response.content_type:
            raw = await self._patiently(
                _whole_body(response), ticket, deadline, "chunk_timeout_s", "its answer"
            )
            yield parse_json(raw, self.spec.provider, model)
            return
        decoder, limit = SseDecoder(), "first_token_timeout_s"
        while True:
            block = await self._patiently(
                response.content.readany(), ticket, deadline, limit, "the next chunk"
            )
            for data in decoder.feed(block) if block else decoder.flush():
                if data.strip() == "[DONE]":
                    return
                yield parse_json(data, self.spec.provider, model)
            if not block:
                return
            limit = "chunk_timeout_s"

    async def _patiently(
        self, awaitable: Awaitable[T], ticket: Ticket, deadline: Deadline, limit: str, doing: str
    ) -> T:
        """Wait as long as the limit of that name, the deadline and the caller allow; map what goes wrong."""
        provider, model = self.spec.provider, self.spec.key
        limit_s, left_s = self._limits[limit], deadline.remaining_s()
        try:
            # One timer for both: the nearer of the two is the one that can pass.
            async with asyncio.timeout(min(limit_s, left_s)) as timeout:
                return await ticket.wait(awaitable)
        except aiohttp.ConnectionTimeoutError as error:
            raise ProviderError(
                f"{provider} {model}: no connection in time", Fault.TIMEOUT, provider, model
            ) from error
        except TimeoutError as error:
            if timeout.expired():
                if left_s <= limit_s:
                    raise deadline.error(f"{provider} {model} sent {doing}") from error
                what = f"{provider} {model} sent nothing for {limit_s:g} s ({doing})"
                raise ProviderError(what, Fault.TIMEOUT, provider, model) from error
            raise ProviderError(f"{provider} {model}: {error}", Fault.TIMEOUT, provider, model) from error
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
            what = f"{provider} {model} cannot be reached at {self._url}: {error}"
            raise ProviderError(what, Fault.REFUSED, provider, model) from error
        except (aiohttp.ClientPayloadError, ConnectionError) as error:
            raise self._cut(model, "was cut off") from error
        except aiohttp.ClientError as error:
            raise ProviderError(
                f"{provider} {model}: {error}", Fault.BAD_RESPONSE, provider, model
            ) from error

    def _cut(self, model: str, how: str) -> ProviderError:
        provider = self.spec.provider
        return ProviderError(f"the answer of {provider} {model} {how}", Fault.STREAM_CUT, provider, model)

    async def abort(self, request_id: str) -> None:
        """Close the connection, which tells the server; the waiting call ends with CancelledRun."""
        self._calls.abort(request_id)

    async def check_health(self) -> None:
        """GET /models; a refused connection or a 5xx is a failure, a refused key too."""
        if self._session is None:
            raise ProviderError(
                f"{self.spec.key} is not started", Fault.REFUSED, self.spec.provider, self.spec.key
            )
        ticket, deadline = Ticket("health", 0), Deadline(10.0)
        asking = self._session.get(f"{self._url}models", allow_redirects=False)
        response = await self._patiently(
            _started(asking), ticket, deadline, "connect_timeout_s", "its models"
        )
        async with response:
            if response.status >= 500 or response.status in (401, 403):
                raise provider_failure(self.spec.provider, self.spec.key, response.status, "health check")

    def stats(self) -> EngineStats:
        """Calls under way; what the server does with them is not known here."""
        return EngineStats(running=len(self._calls))

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones."""
        await self._calls.drain(timeout_s)

    async def shutdown(self) -> None:
        """Abort what runs and close the session."""
        await self._calls.drain(0)
        self._calls.abort_all()
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _started(request: Any) -> aiohttp.ClientResponse:
    """The response with its headers read; the caller closes it."""
    response: aiohttp.ClientResponse = await request
    return response


async def _whole_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > _MAX_BODY_BYTES:
            raise ProviderError(f"an answer of over {_MAX_BODY_BYTES} bytes", Fault.BAD_RESPONSE)
    return bytes(body)


def _json_or_text(raw: bytes) -> Any:
    try:
        return parse_json(raw, "", "")
    except ProviderError:
        return raw.decode("utf-8", errors="replace").strip()
