"""What does the gateway add to a model's provider, and what does it cost, beside LiteLLM's proxy?

Direct mode with authentication, limits and accounting on, over HTTP, in front of an instant upstream. Raw,
ours and LiteLLM's take turns in short blocks, so that a noisy minute hits all three.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Any

import aiohttp
import psutil

from benchmarks.child import say
from benchmarks.litellm_proxy import MASTER_KEY, litellm_proxy
from benchmarks.load import Sample, Target, closed_loop, open_loop, quantile_ms, session
from benchmarks.process_tree import (
    CpuReading,
    cpu_between,
    read_cpu,
    runtime_processes,
    serving,
    with_children,
)
from benchmarks.profile import find_process, profiled
from benchmarks.result import Finding, Row, rounded
from benchmarks.stage import INSTANT, Stage

QUESTION = "gateway_overhead"
ADDED_MS, CPU_RATIO = 1.5, 4.0
PROMPT = " ".join(["benchmark"] * 50)  # 0.5 KB
ROUNDS, PER_ROUND = 6, 120
IN_FLIGHT, CPU_SECONDS, CPU_ROUNDS = 16, 5.0, 2
OPEN_PER_SECOND, OPEN_SECONDS = 40, 4.0
ADDED = "gateway: p50 added to the raw upstream, 1 in flight"
PER_CPU = "gateway: requests a CPU-second over LiteLLM's proxy"
OPEN = f"gateway: p99 at {OPEN_PER_SECOND} requests/s, open loop"


async def measure(stage: Stage) -> Finding:
    """Rows: added latency, requests a CPU-second against the proxy's; the open loop is reported."""
    async with litellm_proxy(stage.cache, stage.folder, stage.instant_url) as proxy:
        targets = targets_of(stage, proxy.base_url)
        trees: dict[str, Callable[[], list[psutil.Process]]] = {
            "parley": lambda: runtime_processes(stage.runtime.home),
            "litellm": lambda: with_children(proxy.pid),
        }
        async with session(IN_FLIGHT) as client:
            for target in targets:
                _refuse_errors(await closed_loop(client, target, 4, requests=60))
            alone = await _alone(client, targets)
            cpu = await _cpu(client, targets[1:], trees)
            opened = {t.name: await open_loop(client, t, OPEN_PER_SECOND, OPEN_SECONDS) for t in targets}
    finding = _finding(alone, cpu, opened)
    if not finding.missed:
        return finding
    return Finding(QUESTION, finding.rows, finding.details, await _profile(stage, targets[1]))


def targets_of(stage: Stage, proxy_url: str) -> list[Target]:
    """The same question at the upstream, at our API and at the proxy."""
    chat = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 32}
    ours = {"model_key": INSTANT, "prompt": PROMPT, "max_tokens": 32}
    return [
        Target("raw", f"{stage.instant_url}/chat/completions", chat),
        stage.runtime.inference("parley", ours),
        Target("litellm", f"{proxy_url}/chat/completions", chat, {"Authorization": f"Bearer {MASTER_KEY}"}),
    ]


async def _alone(client: aiohttp.ClientSession, targets: list[Target]) -> dict[str, list[list[float]]]:
    """One request in flight, in blocks that take turns: latencies by target and round."""
    rounds: dict[str, list[list[float]]] = {target.name: [] for target in targets}
    for _ in range(ROUNDS):
        for target in targets:
            sample = _refuse_errors(await closed_loop(client, target, 1, requests=PER_ROUND))
            rounds[target.name].append(sample.latencies_s)
    return rounds


async def _cpu(
    client: aiohttp.ClientSession,
    targets: list[Target],
    trees: dict[str, Callable[[], list[psutil.Process]]],
) -> dict[str, list[dict[str, Any]]]:
    """Saturated: answers, and CPU seconds of the processes that made them, children included."""
    found: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets}
    for _ in range(CPU_ROUNDS):
        for target in targets:
            before = await asyncio.to_thread(_read, trees[target.name])
            sample = _refuse_errors(await closed_loop(client, target, IN_FLIGHT, seconds=CPU_SECONDS))
            after = await asyncio.to_thread(_read, trees[target.name])
            spent = cpu_between(before, after)
            found[target.name].append(
                {"requests": len(sample.latencies_s), "per_s": sample.rate, "cpu_s": spent,
                 "serving_s": serving(spent),
                 "p50_ms": quantile_ms(sample.latencies_s, 0.5)}
            )  # fmt: skip
            say(f"{target.name}: {sample.rate:.0f} requests/s at {IN_FLIGHT} in flight")
    return found


def _read(tree: Callable[[], list[psutil.Process]]) -> CpuReading:
    return read_cpu(tree())


def _finding(
    alone: dict[str, list[list[float]]], cpu: dict[str, list[dict[str, Any]]], opened: dict[str, Sample]
) -> Finding:
    p50 = {name: [quantile_ms(r, 0.5) for r in rounds] for name, rounds in alone.items()}
    added = {
        name: [a - raw for a, raw in zip(p50[name], p50["raw"], strict=True)]
        for name in ("parley", "litellm")
    }
    all_of_it = {name: _per_cpu_second(rounds, whole_tree=True) for name, rounds in cpu.items()}
    on_the_way = {name: _per_cpu_second(rounds, whole_tree=False) for name, rounds in cpu.items()}
    ratio = on_the_way["parley"] / on_the_way["litellm"]
    whole = all_of_it["parley"] / all_of_it["litellm"]
    raw_note = f"raw {statistics.median(p50['raw']):.2f} ms"
    cpu_note = f"{on_the_way['parley']:.0f} against {on_the_way['litellm']:.0f}; {whole:.1f} × with Ray's own"
    p99 = {name: quantile_ms(sample.latencies_s, 0.99) for name, sample in opened.items()}
    rows = (
        Row(ADDED, statistics.median(added["parley"]), "ms", ADDED_MS, note=raw_note),
        Row("gateway: the same by LiteLLM's proxy", statistics.median(added["litellm"]), "ms"),
        Row(PER_CPU, ratio, "×", CPU_RATIO, at_most=False, note=cpu_note),
        Row(OPEN, p99["parley"], "ms", note=f"LiteLLM's proxy {p99['litellm']:.0f} ms"),
    )
    details = {
        "p50_ms_by_round": {name: rounded(values) for name, values in p50.items()},
        "closed_loop": cpu,
        "open_loop": {
            name: {
                "errors": len(s.errors),
                **{f"p{q}_ms": quantile_ms(s.latencies_s, q / 100) for q in (50, 95, 99)},
            }
            for name, s in opened.items()
        },
    }
    return Finding(QUESTION, rows, details)


def _per_cpu_second(rounds: list[dict[str, Any]], whole_tree: bool) -> float:
    seconds = sum(sum(r["cpu_s"].values()) if whole_tree else r["serving_s"] for r in rounds)
    return float(sum(r["requests"] for r in rounds) / seconds)


def _refuse_errors(sample: Sample) -> Sample:
    """A figure over failed requests would be a figure about errors."""
    if sample.errors:
        raise RuntimeError(f"{len(sample.errors)} requests failed, the first with {sample.errors[0]}")
    return sample


async def _profile(stage: Stage, target: Target) -> list[str] | None:
    pid = find_process(runtime_processes(stage.runtime.home), "Ingress")
    async with session(IN_FLIGHT) as client:
        return (
            None if pid is None else await profiled(pid, 4, closed_loop(client, target, IN_FLIGHT, seconds=6))
        )
