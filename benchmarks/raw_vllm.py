"""vLLM alone, in a process of its own, with the very arguments that the runtime's engine uses.

Reads jobs as JSON lines from stdin ({"prompts": […], "in_flight": 16, "max_tokens": 128}), answers each with
{"tokens": …, "seconds": …}. ``python -m benchmarks.raw_vllm --model FOLDER --home DIR``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from actors.engines.vllm_engine import VllmEngine
from registries.contracts.config import RuntimeConfig
from registries.specs import ModelSpec


async def serve(folder: str, home: str) -> None:
    """Load, say so, work off jobs until stdin ends."""
    spec = ModelSpec(key="raw", family="general", provider="local", engine="vllm", location=folder,
                     context_window=1024, default_strategy="optimized")  # fmt: skip
    engine = VllmEngine(spec, RuntimeConfig(home=home))
    await engine.start()
    # The engine's own vLLM: another one with arguments of its own would be another contestant.
    vllm, tokenizer = engine._engine, engine._tokenizer
    try:
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await work(vllm, tokenizer, json.loads(line))), flush=True)
    finally:
        await engine.shutdown()


async def work(vllm: Any, tokenizer: Any, job: dict[str, Any]) -> dict[str, float]:
    """All prompts, ``in_flight`` at a time."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    params = SamplingParams(
        max_tokens=job["max_tokens"], temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY
    )
    waiting = iter(enumerate(job["prompts"]))
    tokens = 0

    async def worker() -> None:
        nonlocal tokens
        for number, prompt in waiting:
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
            async for output in vllm.generate(
                {"prompt_token_ids": ids}, params, f"{time.monotonic_ns()}-{number}"
            ):
                if output.finished:
                    tokens += len(output.outputs[0].token_ids)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(job["in_flight"])))
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--home", required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.model, arguments.home))
