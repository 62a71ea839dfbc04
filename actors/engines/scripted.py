"""The scripted engine: deterministic answers and failures, for tests and benchmarks, labelled so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pydantic
import yaml

from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight
from actors.engines.script import Performance, Script, tokens_of
from actors.engines.scripted_cast import ScriptedCast, Spoken
from registries.contracts.engine import EngineCall, EngineResult, EngineStats
from registries.contracts.errors import Fault, ProviderError, ValidationError
from registries.contracts.generation import GenerationChunk
from registries.specs import ModelSpec

PROVIDER = "scripted"


def load_script(spec: ModelSpec) -> Script:
    """The script of an entry: ``engine_options.script`` inline, or ``location`` naming a YAML file."""
    inline = spec.engine_options.get("script")
    path = Path(spec.location)
    try:
        if inline is not None:
            return Script.model_validate(inline)
        if path.suffix in {".yaml", ".yml", ".json"}:
            return Script.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError, pydantic.ValidationError) as error:
        where = "engine_options.script" if inline is not None else str(path)
        raise ValidationError(f"model {spec.key}: {where} is no script: {error}", where) from error
    return Script(echo=True)


class ScriptedEngine:
    """Plays a script in process; see ``Script`` for what it can do.

    ``load_time_s`` in ``engine_options`` makes start() take that long.
    """

    def __init__(self, spec: ModelSpec, script: Script | None = None) -> None:
        self.spec = spec
        script = script or load_script(spec)
        self.cast = ScriptedCast(script)
        self._calls = InFlight(f"model {spec.key}")
        self._closed = False

    async def start(self) -> None:
        """Ready after ``engine_options.load_time_s`` seconds (default 0)."""
        await asyncio.sleep(float(self.spec.engine_options.get("load_time_s", 0)))

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole scripted answer."""
        async with aclosing(self.stream(call)) as items:
            async for item in items:
                if isinstance(item, EngineResult):
                    return item
        raise AssertionError("a stream ends in a result")

    async def stream(self, call: EngineCall) -> AsyncGenerator[GenerationChunk | EngineResult, None]:
        """Words at the scripted pace, then the result."""
        started, deadline = time.monotonic(), Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            prompt_tokens = self._check(call)
            spoken, first = Spoken(), None
            async with aclosing(self._perform(call, spoken)) as pieces:
                while True:
                    waiting = deadline.wait(anext(pieces, None), "waiting for the scripted answer")
                    piece = await ticket.wait(waiting)
                    if piece is None:
                        break
                    first = time.monotonic() - started if first is None else first
                    yield GenerationChunk(text=piece[0], tokens=piece[1])
            yield EngineResult(
                spoken.text, spoken.finish_reason, prompt_tokens, spoken.tokens, first_token_s=first
            )

    async def _perform(self, call: EngineCall, spoken: Spoken) -> AsyncGenerator[tuple[str, int], None]:
        async with self.cast.slot():
            performance = self.cast.player.perform(_question(call), call.seed)
            fault = performance.fault_class
            if fault is not None and fault is not Fault.STREAM_CUT:
                await self._fail(performance, fault)
            said = 0
            async with aclosing(self.cast.speak(performance, call.max_tokens, call.stop, spoken)) as pieces:
                async for piece in pieces:
                    if fault and performance.fault and said >= performance.fault.after_tokens:
                        break
                    said += piece[1]
                    yield piece
            if fault:
                await self._fail(performance, fault)

    async def _fail(self, performance: Performance, fault: Fault) -> None:
        assert performance.fault is not None
        if fault is Fault.TIMEOUT:
            await asyncio.Event().wait()  # hangs until the caller's deadline or cancellation
        raise ProviderError(
            f"{PROVIDER} {self.spec.key}: scripted fault {performance.fault.kind}",
            fault,
            PROVIDER,
            self.spec.key,
            retry_after_s=performance.fault.retry_after_s,
        )

    def _check(self, call: EngineCall) -> int:
        tokens = sum(len(tokens_of(message.content)) for message in call.messages)
        window = min(self.spec.context_window, self.cast.script.context_window)
        if tokens >= window:
            raise ProviderError(
                f"the prompt has {tokens} tokens, the context window of {self.spec.key} is {window}",
                Fault.CONTEXT_WINDOW,
                PROVIDER,
                self.spec.key,
                "prompt",
            )
        return tokens

    async def abort(self, request_id: str) -> None:
        """End the calls of this id with CancelledRun."""
        self._calls.abort(request_id)

    async def check_health(self) -> None:
        """Fails once shut down."""
        if self._closed:
            raise ProviderError(f"{self.spec.key} is shut down", Fault.REFUSED, PROVIDER, self.spec.key)

    def stats(self) -> EngineStats:
        """Running and waiting calls; KV use is the share of the slots in use."""
        slots = self.cast.script.slots
        return EngineStats(
            running=self.cast.running,
            waiting=self.cast.waiting,
            kv_cache_use=0.0 if slots is None else min(1.0, self.cast.running / slots),
        )

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones."""
        await self._calls.drain(timeout_s)

    async def shutdown(self) -> None:
        """Abort what runs and refuse the rest."""
        self._closed = True
        await self._calls.drain(0)
        self._calls.abort_all()


def _question(call: EngineCall) -> str:
    turns = [message.content for message in call.messages if message.role == "user"]
    return turns[-1] if turns else ""
