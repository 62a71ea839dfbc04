"""How many of vLLM's tokens arrive through the runtime: same prompts, whole answers and streamed?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from actors.engines.weights import resolve_weights
from benchmarks.bench_model import BENCH_MODEL, prompt_of
from benchmarks.child import running, say
from benchmarks.load import Target, ask, session
from benchmarks.process_tree import runtime_processes
from benchmarks.profile import find_process, profiled
from benchmarks.result import Finding, Row, rounded
from benchmarks.stage import Stage
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog

QUESTION = "tokens"
IN_FLIGHT, MAX_TOKENS, WARM_UP = 16, 128, 4
WHOLE, STREAMED = 0.95, 0.90
NANO = "nano-m"
Way = Callable[[list[str]], Awaitable[float]]
"""Prompts to tokens a second."""


async def measure(stage: Stage, with_nano: bool) -> Finding:
    """The bench's model against its budgets; the embedded one is reported, so small that all is overhead."""
    rows, details, profile = await _model(
        stage, BENCH_MODEL, str(stage.model_folder), 32, rounds=3, budgets=True
    )
    if with_nano:
        spec = load_catalog().get_model(NANO)
        folder = resolve_weights(spec, RuntimeConfig(home=str(stage.runtime.home)))
        more, nano, _ = await _model(stage, NANO, folder, 480, rounds=3, budgets=False)
        rows, details = rows + more, {**details, **nano}
    return Finding(QUESTION, tuple(rows), details, profile)


async def _model(
    stage: Stage, key: str, folder: str, requests: int, rounds: int, budgets: bool
) -> tuple[list[Row], dict[str, Any], list[str] | None]:
    async with raw_vllm(stage.folder, folder) as raw, session(IN_FLIGHT) as client:
        ways: dict[str, Way] = {
            "raw": raw,
            "whole": lambda prompts: _whole(client, stage, key, prompts),
            "streamed": lambda prompts: _streamed(client, stage, key, prompts),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                rate = await way(_prompts(key, requests if number else WARM_UP, number))
                if number:
                    rates[name].append(rate)
                    say(f"{key} {name}: {rate:.0f} tokens/s")
    ratios = {n: statistics.median(rates[n]) / statistics.median(rates["raw"]) for n in ("whole", "streamed")}
    raw_rate = f"raw {statistics.median(rates['raw']):.0f} tokens/s"
    rows = [
        _row(f"{key}, whole answers", ratios["whole"], WHOLE if budgets else None, raw_rate),
        _row(f"{key}, streamed", ratios["streamed"], STREAMED if budgets else None, ""),
    ]
    details = {f"{key}_tokens_per_s": {name: rounded(values, 1) for name, values in rates.items()}}
    missed = any(row.verdict == "missed" for row in rows)
    return rows, details, await _profile(stage, key) if missed else None


def _row(what: str, ratio: float, budget: float | None, note: str) -> Row:
    return Row(f"tokens: {what}, over raw vLLM", ratio, "×", budget, at_most=False, note=note)


def _prompts(key: str, count: int, number: int) -> list[str]:
    """Others in every round, the same for every way: the prefix cache of neither side knows them."""
    numbers = range(number * count, (number + 1) * count)
    if key == NANO:
        return [f"What is {n % 890 + 101} + {n * 7 % 870 + 103}?" for n in numbers]
    return [prompt_of(n) for n in numbers]


@asynccontextmanager
async def raw_vllm(folder: Path, model_folder: str) -> AsyncIterator[Way]:
    """vLLM in a process of its own; yields the way to ask it."""
    command = [sys.executable, "-m", "benchmarks.raw_vllm", "--model", model_folder, "--home", str(folder)]
    async with running(command, folder / "raw_vllm.log", os.environ, piped=True) as process:
        jobs = process.stdin
        assert jobs is not None
        await _answer(process, folder, 180)

        async def way(prompts: list[str]) -> float:
            job = {"prompts": prompts, "in_flight": IN_FLIGHT, "max_tokens": MAX_TOKENS}
            jobs.write(json.dumps(job).encode() + b"\n")
            await jobs.drain()
            answer = await _answer(process, folder, 300)
            return float(answer["tokens"] / answer["seconds"])

        yield way
        jobs.close()


async def _answer(process: asyncio.subprocess.Process, folder: Path, timeout_s: float) -> dict[str, Any]:
    """The next JSON line; vLLM's own lines on stdout are passed over."""
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while line := await process.stdout.readline():
                if line.startswith(b"{"):
                    return dict(json.loads(line))
    log = (folder / "raw_vllm.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"raw vLLM ended, or said nothing for {timeout_s:g} s:\n{log}")


async def _whole(client: aiohttp.ClientSession, stage: Stage, key: str, prompts: list[str]) -> float:
    async def one(prompt: str) -> int:
        target = stage.runtime.inference("parley", _body(key, prompt, False))
        return int(json.loads(await ask(client, target))["usage"]["completion_tokens"])

    return await _rate(prompts, one)


async def _streamed(client: aiohttp.ClientSession, stage: Stage, key: str, prompts: list[str]) -> float:
    async def one(prompt: str) -> int:
        target: Target = stage.runtime.inference("parley", _body(key, prompt, True))
        last = b""
        async with client.post(target.url, json=target.body, headers=target.headers) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    last = line[5:]
        data = json.loads(last)
        if "usage" not in data:
            raise RuntimeError(f"the stream ended with {last[:300]!r}")
        return int(data["usage"]["completion_tokens"])

    return await _rate(prompts, one)


async def _rate(prompts: list[str], one: Callable[[str], Awaitable[int]]) -> float:
    waiting, counts = iter(prompts), []

    async def worker() -> None:
        for prompt in waiting:
            counts.append(await one(prompt))

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return sum(counts) / (time.perf_counter() - started)


def _body(key: str, prompt: str, stream: bool) -> dict[str, Any]:
    return {
        "model_key": key,
        "prompt": prompt,
        "max_tokens": MAX_TOKENS,
        "temperature": 0.0,
        "stream": stream,
    }


async def _profile(stage: Stage, key: str) -> list[str] | None:
    processes = runtime_processes(stage.runtime.home)
    pid = find_process(processes, f"model-{key}") or find_process(processes, "ModelReplica")
    if pid is None:
        return None
    async with session(IN_FLIGHT) as client:
        return await profiled(pid, 5, _streamed(client, stage, key, _prompts(key, 32, 99)))
