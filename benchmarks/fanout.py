"""What does fanning three experts out cost, as Ray tasks and inline, over the slowest of them?"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.load import Target, ask, session
from benchmarks.parley_runtime import ParleyRuntime
from benchmarks.process_tree import runtime_processes
from benchmarks.profile import find_process, profiled
from benchmarks.result import Finding, Row, rounded
from benchmarks.stage import INLINE_FLOW, INSTANT, SLOW, TASK_FLOW, Stage

QUESTION = "fanout"
RUNS, WARM_UP = 25, 4
BUDGET_MS = {TASK_FLOW: 30.0, INLINE_FLOW: 10.0}
EXPERTS = ("security", "performance", "ux")
LABEL = {TASK_FLOW: "as Ray tasks", INLINE_FLOW: "inline"}


async def measure(stage: Stage) -> Finding:
    """All experts take the same time, that of one raw call: what the section takes beyond it is ours."""
    slowest_s = await _raw_call_s(stage)
    rows: list[Row] = []
    details: dict[str, Any] = {"raw_call_ms": round(1000 * slowest_s, 2)}
    for flow in (INLINE_FLOW, TASK_FLOW):
        sections = [await _section_s(stage.runtime, flow) for _ in range(WARM_UP + RUNS)][WARM_UP:]
        over_ms = [1000 * (section - slowest_s) for section in sections]
        details[f"{flow}_over_ms"] = rounded(over_ms, 2)
        name = f"fan-out: 3 experts {LABEL[flow]}, wall − slowest"
        p90 = sorted(over_ms)[int(0.9 * len(over_ms))]
        rows.append(
            Row(name, statistics.median(over_ms), "ms", BUDGET_MS[flow], note=f"median; p90 {p90:.0f} ms")
        )
    finding = Finding(QUESTION, tuple(rows), details)
    return Finding(QUESTION, tuple(rows), details, await _profile(stage)) if finding.missed else finding


async def _raw_call_s(stage: Stage) -> float:
    target = Target(
        "raw", f"{stage.slow_url}/chat/completions", {"messages": [{"role": "user", "content": "x"}]}
    )
    async with session(1) as client:
        took = []
        for _ in range(10):
            took.append(await _timed(client, target))
    return statistics.median(took[2:])


async def _timed(client: Any, target: Target) -> float:
    started = time.perf_counter()
    await ask(client, target)
    return time.perf_counter() - started


async def _section_s(runtime: ParleyRuntime, flow: str) -> float:
    """From the first expert's start to the synthesizer's."""
    models = {**dict.fromkeys(EXPERTS, SLOW), "synthesizer": INSTANT}
    body = {"flow_type": flow, "prompt": "How shall we store passwords?", "models": models}
    run = await runtime.post("/api/orchestrate", body)
    nodes = {node["id"]: node for node in run["nodes"]}
    failed = [name for name in EXPERTS if nodes[name]["status"] != "completed"]
    if failed:
        raise RuntimeError(f"{flow}: {failed} failed: {nodes[failed[0]].get('error')}")
    starts = [nodes[name]["timings"]["started_s"] for name in EXPERTS]
    return float(nodes["synthesizer"]["timings"]["started_s"] - min(starts))


async def _profile(stage: Stage) -> list[str] | None:
    pid = find_process(runtime_processes(stage.runtime.home), "FlowRunner")

    async def load() -> None:
        for _ in range(12):
            await _section_s(stage.runtime, TASK_FLOW)

    return None if pid is None else await profiled(pid, 4, load())
