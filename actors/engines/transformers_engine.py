"""The same models without vLLM: PyTorch and Transformers, concurrent requests batched in one thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from actors.engines.batch_loop import BatchLoop
from actors.engines.batch_row import BatchRow, Piece
from actors.engines.chat_prompt import encode_chat, refuse_attachments, room_for_answer
from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight
from actors.engines.missing_extra import missing_extra
from actors.engines.start_turn import start_turn
from actors.engines.token_watch import TokenWatch
from actors.engines.weights import model_config, resolve_weights, threads_for, weights_bytes
from actors.gpu import ensure_fits, ensure_gpus, is_gpu_build, read_gpus
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall, EngineResult, EngineStats
from registries.contracts.errors import Fault, ProviderError, ValidationError
from registries.contracts.generation import GenerationChunk
from registries.specs import ModelSpec

_FLOAT32_BELOW_BYTES = 1024**3
_PROBE_TIMEOUT_S = 20.0


class TransformersEngine:
    """One model in this process. ``engine_options``: dtype, max_num_seqs, threads, trust_remote_code.

    Options that only vLLM knows are ignored, so that one registry entry serves both engines.
    """

    def __init__(self, spec: ModelSpec, config: RuntimeConfig) -> None:
        self.spec = spec
        self.config = config
        self.load_time_s = 0.0
        self._calls = InFlight(f"model {spec.key}")
        self._loop: BatchLoop | None = None
        self._watch = TokenWatch()
        self._model: Any = None
        self._tokenizer: Any = None
        self._end_ids: frozenset[int] = frozenset()
        self._window = spec.context_window

    async def start(self) -> None:
        """Load the model; raises ValidationError (location), CapacityError (no GPU), ProviderError."""
        folder = resolve_weights(self.spec, self.config)
        report = await asyncio.to_thread(read_gpus)
        ensure_gpus(self.spec.scaling.num_gpus, self.spec.key, report)
        ensure_fits(self.spec.min_vram_gb, self.config.max_vram_usage_gb, self.spec.key, report)
        num_gpus = self.spec.scaling.num_gpus
        on_gpu = bool(report.devices) and is_gpu_build() if num_gpus is None else num_gpus > 0
        async with start_turn(self.config.home):
            started = time.monotonic()
            try:
                await asyncio.to_thread(self._load, folder, on_gpu)
            except Exception as error:
                raise ProviderError(
                    f"Transformers could not load {self.spec.key} from {self.spec.location}: "
                    f"{missing_extra(error) or error}",
                    Fault.REFUSED,
                    self.spec.provider,
                    self.spec.key,
                ) from error
            self.load_time_s = time.monotonic() - started

    def _load(self, folder: str, on_gpu: bool) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        options = self.spec.engine_options
        if not on_gpu:
            torch.set_num_threads(threads_for(self.spec, folder))
        trust = bool(options.get("trust_remote_code", False))
        small = (weights_bytes(folder) or _FLOAT32_BELOW_BYTES) < _FLOAT32_BELOW_BYTES
        dtype = options.get("dtype", "float32" if small and not on_gpu else "auto")
        cache = os.path.abspath(os.path.expanduser(self.config.model_cache_dir))
        self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, cache_dir=cache)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=trust, cache_dir=cache
        )
        self._model = model.to("cuda" if on_gpu else "cpu").eval()
        positions = getattr(self._model.config, "max_position_embeddings", self.spec.context_window)
        self._window = min(self.spec.context_window, int(positions))
        self._end_ids = _end_ids(model_config(folder), self._model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        rows = int(options.get("max_num_seqs", self.spec.scaling.max_ongoing_requests))
        self._loop = BatchLoop(self._model, pad if pad is not None else min(self._end_ids, default=0), rows)
        self._loop.start()

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer."""
        async with aclosing(self.stream(call)) as items:
            async for item in items:
                if isinstance(item, EngineResult):
                    return item
        raise AssertionError("a stream ends in a result")

    async def stream(self, call: EngineCall) -> AsyncGenerator[GenerationChunk | EngineResult, None]:
        """A chunk a token, then the result. Leaving early frees the row before the next step."""
        started, deadline = time.monotonic(), Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            pieces: asyncio.Queue[Piece] = asyncio.Queue()
            row = self._row(call, pieces)
            parts: list[str] = []
            first: float | None = None
            try:
                self._batch().submit(row)
                while True:
                    piece = await ticket.wait(deadline.wait(pieces.get(), f"{self.spec.key} answered"))
                    if piece.error is not None:
                        raise self._failed(piece.error)
                    first = time.monotonic() - started if first is None else first
                    parts.append(piece.text)
                    if piece.text:
                        yield GenerationChunk(text=piece.text, tokens=piece.tokens)
                    if piece.finish_reason is not None:
                        break
            finally:
                row.cancelled = True
            yield EngineResult(
                "".join(parts), piece.finish_reason, len(row.prompt), row.made, first_token_s=first
            )

    def _batch(self) -> BatchLoop:
        if self._loop is None:
            raise ProviderError(
                f"{self.spec.key}: it is not loaded", Fault.REFUSED, self.spec.provider, self.spec.key
            )
        return self._loop

    def _row(self, call: EngineCall, pieces: asyncio.Queue[Piece]) -> BatchRow:
        self._batch()
        refuse_attachments(self.spec, call)
        if (call.response_format or {}).get("type", "text") != "text":
            raise ValidationError(
                f"response_format: {self.spec.key} runs on Transformers, which allows text only",
                "response_format",
            )
        prompt = encode_chat(self._tokenizer, call)
        events = asyncio.get_running_loop()
        return BatchRow(
            prompt=prompt,
            max_tokens=room_for_answer(self.spec, call, len(prompt), self._window),
            temperature=call.temperature,
            top_p=call.top_p,
            top_k=call.top_k,
            seed=call.seed,
            stop=call.stop,
            tokenizer=self._tokenizer,
            end_ids=self._end_ids,
            deliver=lambda piece: _deliver(events, pieces, piece),
        )

    def _failed(self, error: BaseException) -> ProviderError:
        return ProviderError(
            f"{self.spec.key}: {error}", Fault.BAD_RESPONSE, self.spec.provider, self.spec.key
        )

    async def abort(self, request_id: str) -> None:
        """The waiting call ends with CancelledRun, its row leaves the batch before the next step."""
        self._calls.abort(request_id)

    async def check_health(self) -> None:
        """New tokens since the last check, or one made now within 20 s; draining engines are not asked."""
        batch = self._batch()
        if self._watch.moved(batch.tokens) or self._calls.draining:
            return
        await self._probe(batch)
        self._watch.moved(batch.tokens)  # the probe's own token is no news

    async def _probe(self, batch: BatchLoop) -> None:
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        events = asyncio.get_running_loop()
        row = BatchRow(
            [min(self._end_ids, default=0)], 1, 0.0, 1.0, None, None, (), self._tokenizer, self._end_ids,
            lambda piece: _deliver(events, pieces, piece),
        )  # fmt: skip
        batch.submit(row)
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                piece = await pieces.get()
        except TimeoutError as error:
            raise self._failed(RuntimeError(f"no token in {_PROBE_TIMEOUT_S:g} s")) from error
        finally:
            row.cancelled = True
        if piece.error is not None:
            raise self._failed(piece.error)

    def stats(self) -> EngineStats:
        """Rows in the batch and before it; the cache grows freely, so its use is the share of the rows."""
        if self._loop is None:
            return EngineStats()
        rows = int(self.spec.engine_options.get("max_num_seqs", self.spec.scaling.max_ongoing_requests))
        running = self._loop.running
        return EngineStats(running=running, waiting=self._loop.waiting, kv_cache_use=min(1.0, running / rows))

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones."""
        await self._calls.drain(timeout_s)

    async def shutdown(self) -> None:
        """Abort what runs and end the thread."""
        await self._calls.drain(0)
        self._calls.abort_all()
        batch, self._loop = self._loop, None
        if batch is not None:
            await asyncio.to_thread(batch.close)
        self._model = None


def _deliver(events: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    """Hand a piece from the batch's thread to the caller's loop, which may already be gone."""
    if not events.is_closed():
        events.call_soon_threadsafe(pieces.put_nowait, piece)


def _end_ids(config: dict[str, Any], model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer, by the model's configurations and its tokenizer."""
    generation = getattr(model, "generation_config", None)
    found: set[int] = set()
    for value in (
        config.get("eos_token_id"),
        getattr(generation, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if value is not None:
            found.update(value if isinstance(value, list) else [value])
    return frozenset(found)
