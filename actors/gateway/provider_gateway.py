"""ProviderGateway: the only way that anything reaches a model."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from typing import Any

from actors.gateway.breaker import BreakerRecord
from actors.gateway.breaker_board import BreakerBoard
from actors.gateway.call_session import CallSession, Surroundings, Try
from actors.gateway.faults import still_loading
from actors.gateway.observer import GatewayObserver, NullObserver
from actors.gateway.providers import Providers
from actors.gateway.retry_budget import RetryBudget
from actors.gateway.selection import Selector, TokenCounter, source_of
from actors.gateway.settlement import Settlement
from actors.gateway.timed_stream import timed_stream
from actors.gateway.try_guard import TryGuard
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult, Timings
from registries.contracts.well_formed import WellFormedStream, well_formed
from registries.specs import ModelSpec, StrategySpec


class ProviderGateway:
    """Selection, breakers, retries, fallback and settlement around Completers; a part of the calling process.

    What acts on the world is injected: ``providers`` answer, ``board`` holds breakers, ``clock`` (seconds,
    monotonic), ``sleep`` and ``rng`` drive the retries, ``traceparent`` gives the W3C context to pass on,
    ``loaded`` are the local models within reach (by default those that the runtime deploys).
    """

    def __init__(
        self,
        catalog: Catalog,
        config: RuntimeConfig,
        providers: Providers,
        board: BreakerBoard,
        observer: GatewayObserver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
        traceparent: Callable[[], str | None] = lambda: None,
        count_tokens: TokenCounter | None = None,
        loaded: Collection[ModelSpec] | None = None,
    ) -> None:
        self._config = config
        self._providers = providers
        self._board = board
        self._observer = observer or NullObserver()
        self._clock = clock
        self._traceparent = traceparent
        self._selector = Selector(catalog, config, count_tokens, loaded)
        self._settlement = Settlement(catalog.models)
        self._budgets: dict[str, RetryBudget] = {}
        self._around = Surroundings(board, self._observer, self._budget, clock, sleep, rng or random.Random())
        self._in_flight = 0

    def resolve_model(self, request: GenerationRequest) -> str:
        """Key of the model that is tried first; raises NotFound, ValidationError, CapacityError."""
        return self._selector.choose(request).models[0].key

    def select_strategy(self, request: GenerationRequest) -> StrategySpec:
        """The strategy in force for this request; raises NotFound."""
        return self._selector.strategy(request)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """The whole answer.

        Raises ValidationError and NotFound (the request), CapacityError (full, loading, all resting),
        BudgetError (deadline), ProviderError (the chain failed); ``error.context["attempts"]`` has every try.
        Cancelling reaches the engine's slot.
        """
        session = self._open(request)
        with self._counted():
            while True:
                tried = await session.admit()
                with TryGuard(session, tried):
                    await self._loaded(session, tried)
                    call = self._call(session, tried, request)
                    async with asyncio.timeout(tried.timeout_s):
                        answer = await self._providers.completer(tried.spec).complete(call)
                    return self._settle(session, tried, answer, None)

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationResult, None]:
        """Chunks, then one GenerationResult; falls back to another model only before the first chunk.

        Errors and cancellation as in ``generate``; closing the iterator cancels. After the first chunk a
        failure is raised as it is (fault stream_cut, timeout …).
        """
        session = self._open(request)
        with self._counted():
            while True:
                tried = await session.admit()
                with TryGuard(session, tried):
                    await self._loaded(session, tried)
                    call = self._call(session, tried, request)
                    async with aclosing(self._relay(session, tried, call)) as items:
                        async for item in items:
                            yield item
                    return

    async def _loaded(self, session: CallSession, tried: Try) -> None:
        """Wait for an engine of this process on the call's time, not on the try's: loading is no slowness."""
        if self._providers.is_ready(tried.spec):
            return
        try:
            async with asyncio.timeout(session.remaining_s) as timer:
                await self._providers.ready(tried.spec)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise still_loading(tried.spec) from error
        session.loaded(tried)

    async def _relay(
        self, session: CallSession, tried: Try, call: EngineCall
    ) -> AsyncGenerator[GenerationChunk | GenerationResult, None]:
        first_token_s: float | None = None
        words = WellFormedStream()
        source = self._providers.completer(tried.spec).stream(call)
        async with aclosing(timed_stream(source, tried.timeout_s, self._clock)) as items:
            async for item in items:
                if isinstance(item, EngineResult):
                    if rest := words.rest():
                        yield GenerationChunk(text=rest, tokens=0)
                    yield self._settle(session, tried, item, first_token_s)
                    return
                if first_token_s is None:
                    first_token_s = self._clock() - tried.started
                tried.begun = True
                tried.tokens += item.tokens
                tried.usage = self._settlement.cut_off(tried.spec, call, tried.tokens)
                text = words.take(item.text)
                yield item if text is item.text else GenerationChunk(text=text, tokens=item.tokens)
        raise ProviderError(
            f"the stream of model {tried.spec.key!r} ended without its result",
            Fault.STREAM_CUT,
            tried.spec.provider,
            tried.spec.key,
        )

    def snapshot(self) -> dict[str, Any]:
        """Breakers as this process sees them, and its own counters; JSON for /api/system."""
        return {
            **self._board.describe(),
            "in_flight": self._in_flight,
            "retry_budgets": {key: round(b.tokens, 1) for key, b in sorted(self._budgets.items())},
        }

    def export_state(self) -> tuple[BreakerRecord, ...]:
        """Breaker states to send along with a task, or back with its result (picklable)."""
        return self._board.records()

    def adopt_state(self, records: Iterable[BreakerRecord]) -> None:
        """Take over states from another process; the higher epoch wins."""
        self._board.adopt(records)

    async def aclose(self) -> None:
        """End background tasks and engines of this process; idempotent."""
        await self._board.aclose()
        await self._providers.aclose()

    def _open(self, request: GenerationRequest) -> CallSession:
        choice = self._selector.choose(request)
        request_id = request.request_id or uuid.uuid4().hex
        first = choice.models[0]
        self._observer.on_selection(first.key, first.provider, choice.strategy.name, request_id)
        deadline_s = request.deadline_s or self._config.default_deadline_s
        return CallSession(choice, request_id, deadline_s, self._around)

    def _call(self, session: CallSession, tried: Try, request: GenerationRequest) -> EngineCall:
        """The resolved call. Its id is new for every try: an engine may still be aborting the last one."""
        sampling = session.choice.strategy.sampling
        return EngineCall(
            request_id=f"{session.request_id}.{self._around.rng.getrandbits(32):08x}",
            model=tried.spec.location,
            messages=request.chat(),
            max_tokens=self._selector.max_tokens(tried.spec, request, session.choice.strategy),
            temperature=sampling.temperature if request.temperature is None else request.temperature,
            top_p=sampling.top_p if request.top_p is None else request.top_p,
            top_k=sampling.top_k if request.top_k is None else request.top_k,
            stop=request.stop,
            seed=request.seed,
            response_format=request.response_format,
            tools=request.context.tools,
            attachments=request.all_attachments(),
            deadline_s=tried.timeout_s,
            metadata=request.metadata,
            traceparent=self._traceparent(),
            model_key=tried.spec.key,
        )

    def _settle(
        self, session: CallSession, tried: Try, answer: EngineResult, first_token_s: float | None
    ) -> GenerationResult:
        usage = self._settlement.usage(tried.spec, answer)
        session.succeeded(tried, usage)
        now = self._clock()
        return GenerationResult(
            # Here, where every engine's words come in: whoever has them later can write them anywhere.
            text=well_formed(answer.text),
            tokens_generated=answer.completion_tokens,
            timings=Timings(
                load_time=tried.load_s,
                inference_time=now - tried.started,
                total=now - session.started,
                first_token=first_token_s if first_token_s is not None else answer.first_token_s,
            ),
            usage=usage,
            source=source_of(tried.spec),
            model_resolved=tried.spec.key,
            strategy=session.choice.strategy.name,
            finish_reason=answer.finish_reason,
            attempts=tuple(session.attempts),
            breaker=self._board.fact(tried.key),
            request_id=session.request_id,
        )

    def _budget(self, key: str) -> RetryBudget:
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = RetryBudget(self._clock)
        return budget

    def _counted(self) -> _InFlight:
        return _InFlight(self)

    def _change_in_flight(self, by: int) -> None:
        self._in_flight += by


class _InFlight:
    """Counts a call for as long as it lasts."""

    def __init__(self, gateway: ProviderGateway) -> None:
        self._gateway = gateway

    def __enter__(self) -> None:
        self._gateway._change_in_flight(1)

    def __exit__(self, *_: object) -> None:
        self._gateway._change_in_flight(-1)
