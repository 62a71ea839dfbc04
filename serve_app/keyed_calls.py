"""Model calls with an Idempotency-Key: each is made once, and its answer kept, whoever repeats it."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast

import structlog

from actors.running.task_owner import TaskOwner
from actors.stores.json_text import load_json
from actors.stores.records import CallClaim, CallState, IdempotencyKey
from actors.stores.store import CallStore
from actors.telemetry.tracing import start_span
from flows.ports import Generator
from registries.contracts.errors import (
    BudgetError,
    CapacityError,
    Fault,
    KeyReused,
    LeaseLost,
    ParleyError,
    ProviderError,
    StoreError,
)
from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from serve_app.call_reader import CallReader
from serve_app.live_call import LiveCall

LEASE_MARGIN_S = 30.0
"""Past its deadline a call still commits its answer; only then may another process make it."""
OVERRUN_S = 5.0
"""A call that ignores its deadline for so long is cancelled: nobody may make it while another does."""
GIVE_UP_S = 5.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.25
"""Pauses between two looks at a call that another process makes."""
_Place = tuple[str, str, str]


class CallMetrics(Protocol):
    """What is counted (actors.telemetry.metrics.Metrics)."""

    def record_rejected(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class CallAsk:
    """A keyed model call; ``streams``: its text is told while it comes."""

    call: GenerationRequest
    key: IdempotencyKey
    tenant: str
    streams: bool
    traceparent: str | None = None

    @property
    def place(self) -> _Place:
        """What is the same for all its repetitions, and nothing else."""
        return self.tenant, self.key.key, self.key.digest


class _Left(Exception):
    """Nobody waits any more for a call that another process makes."""


class KeyedCalls:
    """One task a key, which outlives its clients: come again with the key and get the answer.

    Who makes a call is decided in the database: the key is claimed in a commit before the model is asked, and
    the answer is committed before anybody has it. Tasks are made in an empty context, as those of RunDispatch
    are. ``owner`` is this process's name in its leases.
    """

    def __init__(
        self,
        store: CallStore,
        generator: Generator,
        metrics: CallMetrics,
        owner: str,
        default_deadline_s: float,
        max_live: int,
    ) -> None:
        self._store = store
        self._generator = generator
        self._metrics = metrics
        self._name = owner
        self._default_deadline_s = default_deadline_s
        self._max_live = max_live
        self._owner = TaskOwner()
        self._live: dict[_Place, LiveCall] = {}
        self._log = structlog.get_logger("serve_app.calls")

    @property
    def live(self) -> int:
        """Calls that are made or waited for here, with and without clients."""
        return len(self._live)

    def attend(self, ask: CallAsk) -> CallReader:
        """A reader of the call; it begins when it is read.

        The reader raises, beside what the model call raises: KeyReused, StoreError and CapacityError before
        the model is asked; CapacityError when this process stops.
        """
        deadline_s = ask.call.deadline_s or self._default_deadline_s
        return CallReader(lambda ends_at: self._join(ask, ends_at), deadline_s)

    async def aclose(self) -> None:
        """Cancel all calls and give their keys back."""
        await self._owner.cancel_all()

    def _join(self, ask: CallAsk, ends_at: float) -> tuple[LiveCall, bool]:
        live = self._live.get(ask.place)
        is_new = live is None
        if live is None:
            if self.live >= self._max_live:
                self._metrics.record_rejected("calls_full")
                raise CapacityError(f"{self.live} keyed calls are under way, the limit; try again", None, 1.0)
            live = self._live[ask.place] = LiveCall()
            work = self._see_through(live, ask, ends_at)
            contextvars.Context().run(self._owner.start, work, "keyed-call")
        live.clients += 1
        return live, is_new

    async def _see_through(self, live: LiveCall, ask: CallAsk, ends_at: float) -> None:
        """Until it has its answer or its error. It leaves the list with that: who comes then begins anew."""
        try:
            live.finish(await self._answer(live, ask, ends_at))
        except asyncio.CancelledError:
            live.fail(CapacityError("this process stops; ask again", retry_after_s=1.0), everyones=True)
            raise
        except (KeyReused, StoreError) as error:
            live.fail(error, everyones=True)
        except Exception as error:  # noqa: BLE001 - raised again by the readers
            if not live.clients and not isinstance(error, _Left):
                known = isinstance(error, ParleyError)
                self._log.warning(
                    "left_call_failed",
                    request_id=ask.call.request_id,
                    error=str(error),
                    exc_info=None if known else error,
                )
            live.fail(error)
        finally:
            del self._live[ask.place]

    async def _answer(self, live: LiveCall, ask: CallAsk, ends_at: float) -> str:
        """The kept answer; made here, or by whoever holds the key."""
        while True:
            claim = self._new_claim(ask, ends_at)
            found = await self._claim(ask.key, claim)
            if found.state == "free":
                live.is_elsewhere = False
                return await self._make(live, ask, claim, ends_at)
            live.is_elsewhere = True
            found = await self._look_until_settled(live, ask, found, ends_at)
            if found.answer is not None:
                if ask.streams:
                    live.say(load_json(found.answer)["text"])
                return found.answer

    def _new_claim(self, ask: CallAsk, ends_at: float) -> CallClaim:
        left_s = ends_at - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise _too_late()
        token = secrets.token_hex(16)
        return CallClaim(ask.tenant, ask.key.key, self._name, token, left_s + LEASE_MARGIN_S)

    async def _claim(self, key: IdempotencyKey, claim: CallClaim) -> CallState:
        try:
            return await self._store.claim_call(key, claim)
        except asyncio.CancelledError:
            # It may have been committed all the same. Writes of one key keep their order.
            await self._give_up(claim)
            raise

    async def _look_until_settled(
        self, live: LiveCall, ask: CallAsk, found: CallState, ends_at: float
    ) -> CallState:
        """Until the call that another process makes has its answer, or has none any more."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_LOOK_S
        while found.state == "held":
            if not live.clients:
                raise _Left
            left_s = ends_at - loop.time()
            if left_s <= 0:
                raise _too_late()
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, LONGEST_LOOK_S)
            found = await self._store.look_at_call(ask.tenant, ask.key)
        return found

    async def _make(self, live: LiveCall, ask: CallAsk, claim: CallClaim, ends_at: float) -> str:
        """A failure is not kept: the key is given back, and a repetition calls again."""
        try:
            answer = await self._ask_model(live, ask, ends_at)
            return await self._keep(live, ask, claim, answer)
        except BaseException:
            await self._give_up(claim)
            raise

    async def _ask_model(self, live: LiveCall, ask: CallAsk, ends_at: float) -> str:
        left_s = max(0.001, ends_at - asyncio.get_running_loop().time())
        call = ask.call.model_copy(update={"deadline_s": left_s})
        try:
            async with asyncio.timeout(left_s + OVERRUN_S) as timer:
                with start_span("inference", ask.traceparent):
                    if not ask.streams:
                        return (await self._generator.generate(call)).model_dump_json()
                    return await self._stream(live, call)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise _too_late() from error

    async def _stream(self, live: LiveCall, call: GenerationRequest) -> str:
        answer = ""
        source = cast(AsyncGenerator[GenerationChunk | GenerationResult, None], self._generator.stream(call))
        async with aclosing(source) as items:
            # To its end: closing it early would look like a client that left.
            async for item in items:
                if isinstance(item, GenerationResult):
                    answer = item.model_dump_json()
                else:
                    live.say(item.text)
        if not answer:
            raise ProviderError("the stream ended without its result", Fault.STREAM_CUT)
        return answer

    async def _keep(self, live: LiveCall, ask: CallAsk, claim: CallClaim, answer: str) -> str:
        """Commit the answer; what is answered in the end.

        Without a database the client has its answer all the same: it was paid for. The key is free when the
        lease ends, at once for this process.
        """
        log = self._log.bind(request_id=ask.call.request_id)
        try:
            await self._store.keep_answer(claim, answer)
        except LeaseLost:
            # Stopped for longer than the lease. All get the same answer, unless some of this one was told.
            log.warning("answer_came_too_late")
            found = await self._store.look_at_call(ask.tenant, ask.key)
            return answer if found.answer is None or live.has_said else found.answer
        except StoreError as error:
            log.warning("answer_not_kept", error=error.message)
        return answer

    async def _give_up(self, claim: CallClaim) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._store.give_up_call(claim)
        except (StoreError, TimeoutError) as error:
            self._log.warning("key_not_given_back", error=str(error))


def _too_late() -> BudgetError:
    return BudgetError("the deadline passed before there was an answer", param="deadline_s")
