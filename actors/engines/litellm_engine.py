"""Every other provider, through litellm's SDK. The only file that imports litellm, and only in start().

Used by the RemoteAdapter alone: the import takes three seconds and 180 MB.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight, Ticket
from actors.engines.litellm_endpoints import Endpoint, litellm_provider
from actors.engines.litellm_faults import litellm_failure
from actors.engines.openai_protocol import Tally, chat_messages, finish_of
from registries.contracts.engine import EngineCall, EngineResult, EngineStats
from registries.contracts.errors import Fault, ParleyError, ProviderError
from registries.contracts.generation import GenerationChunk

CallFacts = dict[str, Any]
"""What litellm's callback tells of a call: model, provider, status, seconds, tokens, cost_usd, user, tags."""

_MICRO = 1_000_000
# Finish reasons of answers that broke off, which litellm calls a stop.
_BROKEN = frozenset({"abort", "error", "network_error", "malformed_response", "insufficient_system_resource"})


class LitellmEngine:
    """All remote models of litellm in one engine; ``EngineCall.model`` is litellm's name (provider/model).

    ``endpoints`` (see ``litellm_endpoints``) has base URL and key of each entry by ``EngineCall.model_key``;
    ``on_call`` gets the facts of each call from litellm's own callback. litellm's Router, caches, retries and
    budgets stay off: the gateway owns those.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        on_call: Callable[[CallFacts], None] | None = None,
    ) -> None:
        self._endpoints = dict(endpoints)
        self._on_call = on_call
        self._calls = InFlight("litellm")
        self._litellm: Any = None

    async def start(self) -> None:
        """Import litellm, with its bundled price map and without its telemetry."""
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(self._import)

    def _import(self) -> Any:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else the import reads .env files of its own
        import litellm
        from litellm.integrations.custom_logger import CustomLogger

        logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # it prints prompts and stack traces
        litellm.suppress_debug_info = True
        litellm.telemetry = False
        litellm.drop_params = True  # a provider without top_k or seed answers without them
        if self._on_call is not None:
            litellm.callbacks = [_listener(CustomLogger, self._on_call)]
        return litellm

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer, with its cost from litellm's price map where it knows the model."""
        deadline = Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            response = await self._ask(call, False, ticket, deadline)
            choices = response.choices
            if not choices:
                raise self._failed(call, "sent an answer without a choice", Fault.BAD_RESPONSE)
            tally = Tally(call)
            tally.text.append(choices[0].message.content or "")
            tally.finish_reason = finish_of(_finish(choices[0]), litellm_provider(call.model), call.model)
            tally.take_usage(_usage(response))
            return self._priced(tally.result(None), call)

    async def stream(self, call: EngineCall) -> AsyncGenerator[GenerationChunk | EngineResult, None]:
        """Chunks, then the result; a stream without its last event is stream_cut."""
        started, deadline = time.monotonic(), Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            response = await self._ask(call, True, ticket, deadline)
            tally, first = Tally(call), None
            async with aclosing(response):
                while True:
                    chunk = await self._next(response, call, ticket, deadline, tally.chunks > 0)
                    if chunk is None:
                        break
                    piece = tally.take(_event(chunk), litellm_provider(call.model))
                    if piece:
                        first = time.monotonic() - started if first is None else first
                        yield GenerationChunk(text=piece, tokens=1)
            # litellm writes a finish reason of its own under a stream that ended without one
            told = response.received_finish_reason or response.intermittent_finish_reason
            if not told or str(told).lower() in _BROKEN:
                fault = Fault.STREAM_CUT if tally.chunks else Fault.BAD_RESPONSE
                raise self._failed(call, "ended without its last event", fault)
            yield self._priced(tally.result(first), call)

    async def _ask(self, call: EngineCall, stream: bool, ticket: Ticket, deadline: Deadline) -> Any:
        if self._litellm is None:
            raise self._failed(call, "cannot be asked, the adapter is not started", Fault.REFUSED)
        if call.model_key not in self._endpoints:
            # Never asked elsewhere: a private entry's prompt would go to the public provider.
            raise self._failed(call, f"is no entry here ({call.model_key!r})", Fault.NOT_SERVED)
        base_url, key = self._endpoints[call.model_key]
        arguments: dict[str, Any] = {
            "model": call.model,
            "messages": chat_messages(call),
            "max_tokens": call.max_tokens,
            "temperature": call.temperature,
            "top_p": call.top_p,
            "top_k": call.top_k,
            "stop": list(call.stop) or None,
            "seed": call.seed,
            "response_format": call.response_format,
            "tools": list(call.tools) or None,
            "user": call.metadata.get("user"),
            "metadata": _metadata(call),
            "api_base": base_url,
            "api_key": key or None,
            "timeout": call.deadline_s,
            "num_retries": 0,
            "max_retries": 0,
        }
        if stream:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        given = {name: value for name, value in arguments.items() if value is not None}
        return await self._mapped(self._litellm.acompletion(**given), call, ticket, deadline, False)

    async def _next(
        self, response: Any, call: EngineCall, ticket: Ticket, deadline: Deadline, midstream: bool
    ) -> Any:
        try:
            return await self._mapped(anext(response, None), call, ticket, deadline, midstream)
        except StopAsyncIteration:
            return None

    async def _mapped(
        self, awaitable: Any, call: EngineCall, ticket: Ticket, deadline: Deadline, midstream: bool
    ) -> Any:
        try:
            return await ticket.wait(deadline.wait(awaitable, f"{call.model} answered"))
        except (ParleyError, StopAsyncIteration):
            raise
        except Exception as error:
            if deadline.remaining_s() <= 0:
                raise deadline.error(f"{call.model} answered") from error
            raise litellm_failure(error, litellm_provider(call.model), call.model, midstream) from error

    def _priced(self, result: EngineResult, call: EngineCall) -> EngineResult:
        """With the cost by the local price map; None where it does not know the model, which is not free."""
        cost = self._cost(call.model, result)
        return EngineResult(
            result.text, result.finish_reason, result.prompt_tokens, result.completion_tokens,
            result.estimated, result.first_token_s, cost,
        )  # fmt: skip

    def _cost(self, model: str, result: EngineResult) -> int | None:
        try:
            prompt, completion = self._litellm.cost_per_token(
                model=model, prompt_tokens=result.prompt_tokens, completion_tokens=result.completion_tokens
            )
        except Exception:  # noqa: BLE001 - litellm raises bare ones, and no answer is lost over its price
            return None
        cost: int = round((prompt + completion) * _MICRO)
        return cost

    def _failed(self, call: EngineCall, what: str, fault: Fault) -> ProviderError:
        provider = litellm_provider(call.model)
        return ProviderError(f"{provider} {call.model} {what}", fault, provider, call.model)

    async def abort(self, request_id: str) -> None:
        """Close the connection; the waiting call ends with CancelledRun."""
        self._calls.abort(request_id)

    async def check_health(self) -> None:
        """Whether litellm is loaded; providers are judged by their breakers."""
        if self._litellm is None:
            raise ProviderError("litellm is not loaded", Fault.REFUSED, "litellm")

    def stats(self) -> EngineStats:
        """Calls under way."""
        return EngineStats(running=len(self._calls))

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones."""
        await self._calls.drain(timeout_s)

    async def shutdown(self) -> None:
        """Abort what runs and close litellm's connections."""
        await self._calls.drain(0)
        self._calls.abort_all()
        litellm, self._litellm = self._litellm, None
        if litellm is not None:
            await litellm.close_litellm_async_clients()


def _metadata(call: EngineCall) -> dict[str, Any]:
    """User and tags as litellm's callbacks expect them, and the rest as it is."""
    tags = [tag for tag in call.metadata.get("tags", "").split(",") if tag]
    rest = {name: value for name, value in call.metadata.items() if name != "tags"}
    return {**rest, "request_id": call.request_id} | ({"tags": tags} if tags else {})


def _finish(choice: Any) -> str | None:
    """litellm's finish reason, or the provider's own where that says that the answer broke off."""
    native = (getattr(choice, "provider_specific_fields", None) or {}).get("native_finish_reason")
    finish: str | None = native if str(native).lower() in _BROKEN else choice.finish_reason
    return finish


def _usage(response: Any) -> dict[str, Any]:
    usage = getattr(response, "usage", None)
    if usage is None:
        return {}
    return {"usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}}


def _event(chunk: Any) -> dict[str, Any]:
    """litellm's chunk as the protocol's event."""
    choices = [
        {"delta": {"content": choice.delta.content}, "finish_reason": choice.finish_reason}
        for choice in chunk.choices
    ]
    return {"choices": choices, **_usage(chunk)}


def _listener(base: type, on_call: Callable[[CallFacts], None]) -> Any:
    """A litellm CustomLogger that hands the facts of each call on."""

    def facts(kwargs: Mapping[str, Any], status: str, started: Any, ended: Any) -> CallFacts:
        standard = kwargs.get("standard_logging_object") or {}
        metadata = (kwargs.get("litellm_params") or {}).get("metadata") or {}
        return {
            "model": kwargs.get("model", ""),
            "provider": standard.get("custom_llm_provider") or kwargs.get("custom_llm_provider") or "",
            "status": status,
            "seconds": (ended - started).total_seconds(),
            "prompt_tokens": int(standard.get("prompt_tokens") or 0),
            "completion_tokens": int(standard.get("completion_tokens") or 0),
            "cost_usd": float(standard.get("response_cost") or kwargs.get("response_cost") or 0.0),
            "user": kwargs.get("user") or metadata.get("user"),
            "tags": list(metadata.get("tags") or []),
            "request_id": metadata.get("request_id"),
        }

    class Listener(base):  # type: ignore[misc]
        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            on_call(facts(kwargs, "ok", start_time, end_time))

        async def async_log_failure_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            on_call(facts(kwargs, "error", start_time, end_time))

    return Listener()
