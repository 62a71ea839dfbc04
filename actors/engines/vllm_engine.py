"""vLLM in process: AsyncLLM with prefix caching, on a GPU where there is one, else its CPU build.

The only file that imports vllm, and only in start(): the import takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import psutil

from actors.engines.chat_prompt import encode_chat, refuse_attachments, room_for_answer
from actors.engines.coalescing import StreamPace
from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight, Ticket
from actors.engines.missing_extra import missing_extra
from actors.engines.process_tree import children_of, end_processes
from actors.engines.start_turn import start_turn
from actors.engines.token_watch import TokenWatch
from actors.engines.vllm_arguments import check_options, vllm_arguments, vllm_environment
from actors.engines.vllm_progress import VllmProgress
from actors.engines.weights import resolve_weights, threads_for
from actors.gpu import GpuReport, ensure_fits, ensure_gpus, read_gpus
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import REPLICA_LOST, EngineCall, EngineResult, EngineStats
from registries.contracts.errors import (
    CancelledRun,
    CapacityError,
    Fault,
    ParleyError,
    ProviderError,
    ValidationError,
)
from registries.contracts.generation import FinishReason, GenerationChunk
from registries.specs import ModelSpec

_PROBE_TIMEOUT_S = 20.0
# Nothing is lost when an engine on a CPU is killed; on a GPU it should give its memory back itself.
_GRACE_S = {"cpu": 0.5, "gpu": 5.0}


class VllmEngine:
    """One vLLM engine and its processes.

    ``engine_options``: dtype, max_num_seqs, kv_cache_mb and threads (CPU), gpu_memory_utilization,
    tensor_parallel_size, enforce_eager, quantization, max_num_batched_tokens, trust_remote_code.
    """

    def __init__(self, spec: ModelSpec, config: RuntimeConfig) -> None:
        check_options(spec)
        self.spec = spec
        self.config = config
        self.load_time_s = 0.0
        self._calls = InFlight(f"model {spec.key}")
        self._pace = StreamPace()
        self._progress = VllmProgress()
        self._processes: set[psutil.Process] = set()
        self._engine: Any = None
        self._tokenizer: Any = None
        self._window = spec.context_window
        self._watch = TokenWatch()
        self._grace_s = _GRACE_S["gpu"]

    async def start(self) -> None:
        """Load the model, one engine at a time on this machine.

        Raises ValidationError (location), CapacityError (no GPU, or it does not fit), ProviderError (vLLM
        could not load it).
        """
        folder = resolve_weights(self.spec, self.config)
        report = await asyncio.to_thread(read_gpus)
        self._check_device(report)
        try:
            await asyncio.to_thread(_import_vllm, threads_for(self.spec, folder), folder)
        except ModuleNotFoundError as error:
            raise self._failed(missing_extra(error) or str(error), Fault.REFUSED) from error
        async with start_turn(self.config.home):
            started = time.monotonic()
            before = children_of(os.getpid())
            try:
                await asyncio.to_thread(self._load, folder, report)
                await self._engine.collective_rpc("watch_parent", args=(os.getpid(),))
            except Exception as error:
                await asyncio.to_thread(end_processes, children_of(os.getpid()) - before)
                if isinstance(error, ParleyError):
                    raise
                why = f"vLLM could not load it from {self.spec.location}: {error}"
                raise self._failed(why, Fault.REFUSED) from error
            self._processes = children_of(os.getpid()) - before
            self.load_time_s = time.monotonic() - started

    def _check_device(self, report: GpuReport) -> None:
        ensure_gpus(self.spec.scaling.num_gpus, self.spec.key, report)
        ensure_fits(self.spec.min_vram_gb, self.config.max_vram_usage_gb, self.spec.key, report)

    def _load(self, folder: str, report: GpuReport) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        on_cpu = bool(current_platform.is_cpu())
        if on_cpu and self.spec.scaling.num_gpus:
            raise CapacityError(
                f"model {self.spec.key} asks for a GPU, but the installed vLLM is the CPU build",
                "scaling.num_gpus",
            )
        arguments = vllm_arguments(self.spec, self.config, folder, on_cpu, report)
        if on_cpu:
            self._grace_s = _GRACE_S["cpu"]
            # The class and not its name: by name the CPU platform would put the worker in a process of its
            # own, which doubles load time and memory and costs two thirds of a tiny model's tokens.
            arguments["distributed_executor_backend"] = UniProcExecutor
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments), stat_loggers=[self._stat_logger]
        )
        self._tokenizer = self._engine.get_tokenizer()
        self._window = self._engine.model_config.max_model_len

    def _stat_logger(self, _config: Any, _index: int = 0) -> Any:
        return self._progress

    async def complete(self, call: EngineCall) -> EngineResult:
        """The whole answer; vLLM tells it once, at the end."""
        deadline = Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            ids, params = self._prepare(call, streamed=False)
            async with aclosing(
                self._engine.generate({"prompt_token_ids": ids}, params, ticket.engine_id)
            ) as outputs:
                output = await self._next(outputs, ticket, deadline)
            if output is None:
                raise self._failed("it ended without an answer")
            answer = output.outputs[0]
            return self._result(
                ticket, answer.text, answer.finish_reason, len(ids), len(answer.token_ids), None
            )

    async def stream(self, call: EngineCall) -> AsyncGenerator[GenerationChunk | EngineResult, None]:
        """Chunks of several tokens as vLLM makes them, then the result."""
        started, deadline = time.monotonic(), Deadline(call.deadline_s)
        with self._calls.taking(call.request_id) as ticket:
            ids, params = self._prepare(call, streamed=True)
            parts: list[str] = []
            tokens, first, reason = 0, None, None
            async with aclosing(
                self._engine.generate({"prompt_token_ids": ids}, params, ticket.engine_id)
            ) as outputs:
                while reason is None:
                    output = await self._next(outputs, ticket, deadline)
                    if output is None:
                        break
                    answer = output.outputs[0]
                    first = time.monotonic() - started if first is None else first
                    tokens += len(answer.token_ids)
                    reason = answer.finish_reason
                    if answer.text:
                        parts.append(answer.text)
                        yield GenerationChunk(text=answer.text, tokens=len(answer.token_ids))
            self._pace.observe(tokens, time.monotonic() - started - (first or 0.0))
            yield self._result(ticket, "".join(parts), reason, len(ids), tokens, first)

    async def _next(self, outputs: AsyncGenerator[Any, None], ticket: Ticket, deadline: Deadline) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            with self._refusals():
                return await ticket.wait(deadline.wait(anext(outputs, None), f"{self.spec.key} answered"))
        except EngineDeadError as error:
            raise self._failed("its engine process has ended", Fault.REFUSED, {REPLICA_LOST: True}) from error
        except RuntimeError as error:
            raise self._failed(str(error) or type(error).__name__) from error

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What vLLM refuses of a call, when it is built or run, is the caller's fault."""
        from vllm.exceptions import VLLMClientError

        try:
            yield
        except (VLLMClientError, ValueError) as error:
            where = getattr(error, "parameter", None) or "request"
            raise ValidationError(f"{self.spec.key} refused the call: {error}", where) from error

    def _failed(
        self, why: str, fault: Fault = Fault.BAD_RESPONSE, context: dict[str, bool] | None = None
    ) -> ProviderError:
        return ProviderError(
            f"{self.spec.key}: {why}", fault, self.spec.provider, self.spec.key, context=context
        )

    def _prepare(self, call: EngineCall, streamed: bool) -> tuple[list[int], Any]:
        if self._engine is None:
            raise self._failed("it is not loaded", Fault.REFUSED)
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        refuse_attachments(self.spec, call)
        ids = encode_chat(self._tokenizer, call)
        room = room_for_answer(self.spec, call, len(ids), self._window)
        with self._refusals():
            params = SamplingParams(
                max_tokens=room,
                temperature=call.temperature,
                top_p=call.top_p,
                top_k=call.top_k or 0,
                stop=list(call.stop) or None,
                seed=call.seed,
                structured_outputs=_structure(call.response_format),
                output_kind=RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY,
                stream_interval=self._pace.tokens_per_item(len(self._calls)) if streamed else None,
                skip_clone=True,
            )
        return ids, params

    def _result(
        self, ticket: Ticket, text: str, reason: str | None, prompt: int, tokens: int, first_s: float | None
    ) -> EngineResult:
        if reason == "abort":
            raise CancelledRun(f"call {ticket.request_id} was aborted", "request_id")
        if reason not in ("stop", "length"):
            raise self._failed(f"it ended with finish reason {reason!r}")
        finish: FinishReason = "length" if reason == "length" else "stop"
        return EngineResult(text, finish, prompt, tokens, first_token_s=first_s)

    async def abort(self, request_id: str) -> None:
        """Abort in vLLM too; the waiting call ends with CancelledRun."""
        self._calls.abort(request_id)

    async def check_health(self) -> None:
        """New tokens since the last check, or one token made now within 20 s."""
        made = self._watch.moved(self._progress.tokens)
        if self._engine is None or self._engine.errored:
            raise self._failed("not running", Fault.REFUSED)
        if made or self._calls.draining:
            return
        await self._probe()
        self._watch.moved(self._progress.tokens)  # the probe's own token is no news

    async def _probe(self) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY)
        ticket = Ticket("health", time.monotonic_ns())
        async with aclosing(
            self._engine.generate({"prompt_token_ids": [1]}, params, ticket.engine_id)
        ) as outputs:
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await self._next(outputs, ticket, Deadline(2 * _PROBE_TIMEOUT_S))
            except TimeoutError as error:
                raise self._failed(f"no token in {_PROBE_TIMEOUT_S:g} s", Fault.TIMEOUT) from error

    def stats(self) -> EngineStats:
        """vLLM's own figures; a call that it has not scheduled yet counts as waiting."""
        running = min(self._progress.running, len(self._calls))
        return EngineStats(
            running=running,
            waiting=max(0, len(self._calls) - running),
            kv_cache_use=self._progress.kv_cache_use if len(self._calls) else 0.0,
        )

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls, wait for the running ones."""
        await self._calls.drain(timeout_s)

    async def shutdown(self) -> None:
        """Abort what runs, end vLLM and every process that it started."""
        await self._calls.drain(0)
        self._calls.abort_all()
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # else it reports the end that we are about to make
            await asyncio.to_thread(engine.shutdown, self._grace_s)
        processes, self._processes = self._processes, set()
        await asyncio.to_thread(end_processes, processes)


def _import_vllm(threads: int, folder: str) -> None:
    """Seconds of work that need no turn: replicas on one machine import at once and load one by one."""
    os.environ.update(vllm_environment(threads, offline=os.path.isdir(folder)))
    import vllm.v1.engine.async_llm  # noqa: F401


def _structure(response_format: dict[str, Any] | None) -> Any:
    """vLLM's constraint for OpenAI's response_format."""
    kind = (response_format or {}).get("type", "text")
    if kind == "text":
        return None
    from vllm.sampling_params import StructuredOutputsParams

    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind == "json_schema" and response_format is not None:
        return StructuredOutputsParams(json=response_format["json_schema"]["schema"])
    raise ValidationError(
        f"response_format.type {kind!r} is unknown; allowed: text, json_object, json_schema",
        "response_format",
    )
