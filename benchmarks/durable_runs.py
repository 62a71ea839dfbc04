"""What does a durable run cost, how many finish a second, and how soon does a reader see what happened?

Three nodes after one another, each asking an instant model once, over HTTP; every node is committed before
the next begins. LangGraph's own in-memory dev server does the same work in the same minutes, and so do the
bare parts (Serve, HAProxy, LangGraph) with nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import aiohttp

from benchmarks.bare_target import bare_target
from benchmarks.child import say
from benchmarks.langgraph_server import langgraph_server
from benchmarks.load import Sample, Target, closed_loop, quantile_ms, session
from benchmarks.process_tree import cpu_between, read_cpu, runtime_processes
from benchmarks.profile import find_process, profiled
from benchmarks.result import Finding, Row, rounded
from benchmarks.stage import DURABLE_FLOW, SLOW, Stage

QUESTION = "durable_runs"
ALONE_MS, RATE_SQLITE, RATE_POSTGRES, COMMITS, EVENT_MS = 15.0, 250.0, 150.0, 6.0, 50.0
IN_FLIGHT, SECONDS, ROUNDS, ALONE = 32, 8.0, 2, 100
READERS, BESIDE = 40, 4
WARM_UP, SETTLE_S = 100, 20.0
"""First runs, before one alone is timed; and so long the load lasts before rates are, in which runners that
fill a core get company."""
PROMPT = "How shall we store passwords?"


async def measure(stage: Stage) -> Finding:
    """Rows for SQLite, with the dev server beside it."""
    ours = run_target(stage, "parley")
    async with (
        langgraph_server(stage.cache, stage.folder, stage.instant_url) as peer,
        bare_target(stage, PROMPT) as bare,
    ):
        asked = {"assistant_id": "three", "input": {"prompt": PROMPT, "outputs": []}}
        theirs = Target("langgraph dev", f"{peer.base_url}/runs/wait", asked)
        async with session(IN_FLIGHT) as client:
            for target in (ours, bare, theirs):
                refuse_errors(await closed_loop(client, target, 4, requests=WARM_UP))
            before = await commits(stage)
            counts = ((ours, ALONE), (bare, ALONE), (theirs, 10))
            alone = {target.name: await _alone(client, target, count) for target, count in counts}
            # One at a time, so that no two runs share a commit; the claim, which accepts too, is one more.
            a_run = 1 + (await commits(stage) - before) / ALONE
            for target in (ours, bare, theirs):
                refuse_errors(await closed_loop(client, target, IN_FLIGHT, seconds=SETTLE_S))
            cpu_before = await asyncio.to_thread(read_cpu, runtime_processes(stage.runtime.home))
            rates = await _rates(client, [ours, bare, theirs])
            cpu_after = await asyncio.to_thread(read_cpu, runtime_processes(stage.runtime.home))
    lag, busy_lag = await event_lag_ms(stage), await _event_lag_beside_load(stage, ours)
    medians = {name: statistics.median(s.rate for s in samples) for name, samples in rates.items()}
    rows = _rows([ours.name, bare.name, theirs.name], alone, medians, a_run, (lag, busy_lag))
    details: dict[str, Any] = {
        "alone_ms": alone,
        "rates": {name: rounded([s.rate for s in samples]) for name, samples in rates.items()},
        "p50_at_load_ms": {n: quantile_ms(s[-1].latencies_s, 0.5) for n, s in rates.items()},
        "cpu_s_by_process": cpu_between(cpu_before, cpu_after),
        "event_lag": lag,
        "event_lag_beside_load": busy_lag,
    }
    finding = Finding(QUESTION, rows, details)
    return Finding(QUESTION, rows, details, await _profile(stage)) if finding.missed else finding


def _rows(
    names: list[str],
    alone: dict[str, float],
    rates: dict[str, float],
    a_run: float,
    lags: tuple[dict[str, Any], dict[str, Any]],
) -> tuple[Row, ...]:
    ours, bare, theirs = names
    lag, busy_lag = lags
    share = rates[ours] / rates[bare]
    return (
        Row(
            "durable: p50 of a 3-node run, 1 in flight",
            alone[ours],
            "ms",
            ALONE_MS,
            note=f"LangGraph's dev server {alone[theirs]:.0f} ms",
        ),
        Row(
            f"durable: runs/s at {IN_FLIGHT} in flight, SQLite",
            rates[ours],
            "runs/s",
            RATE_SQLITE,
            at_most=False,
            note=f"LangGraph's dev server {rates[theirs]:.0f}",
        ),
        Row(
            "durable: the same parts with nothing of ours, neither durable nor accounted",
            rates[bare],
            "runs/s",
            note=f"p50 alone {alone[bare]:.1f} ms; ours is {share:.2f} of it",
        ),
        Row("durable: commits a run", a_run, "", COMMITS, note="1 in flight, acceptance included"),
        Row("durable: an event reaches a reader, p95", lag["p95_ms"], "ms", EVENT_MS, note=lag["note"]),
        Row(
            f"durable: the same beside {BESIDE} instant runs in flight, which fill both cores",
            busy_lag["p95_ms"],
            "ms",
            note=busy_lag["note"],
        ),
    )


async def measure_postgres(stage: Stage) -> Finding:
    """The rate alone, on a runtime whose store is PostgreSQL."""
    ours = run_target(stage, "parley on PostgreSQL")
    async with session(IN_FLIGHT) as client:
        refuse_errors(await closed_loop(client, ours, 4, requests=WARM_UP))
        p50_ms = await _alone(client, ours, ALONE)
        refuse_errors(await closed_loop(client, ours, IN_FLIGHT, seconds=SETTLE_S))
        rates = [
            refuse_errors(await closed_loop(client, ours, IN_FLIGHT, seconds=SECONDS)) for _ in range(ROUNDS)
        ]
    name = f"durable: runs/s at {IN_FLIGHT} in flight, PostgreSQL"
    rate = statistics.median(sample.rate for sample in rates)
    row = Row(name, rate, "runs/s", RATE_POSTGRES, at_most=False, note=f"p50 alone {p50_ms:.1f} ms")
    details = {"rates": rounded([sample.rate for sample in rates]), "alone_ms": p50_ms}
    finding = Finding(f"{QUESTION}_postgres", (row,), details)
    if not finding.missed:
        return finding
    return Finding(finding.question, finding.rows, details, await _profile(stage))


def run_target(stage: Stage, name: str) -> Target:
    """The 3-node flow at our API, waiting for its end."""
    body = {"flow_type": DURABLE_FLOW, "prompt": PROMPT}
    return Target(name, f"{stage.runtime.url}/api/orchestrate", body, stage.runtime.headers)


async def commits(stage: Stage) -> float:
    """Commits that the runners have made so far; acceptance and claim, one each a run, are not in it."""
    async with aiohttp.ClientSession(headers=stage.runtime.headers) as client:
        # The page is some seconds old: wait until two readings agree.
        last = -1.0
        while True:
            async with client.get(f"{stage.runtime.url}/metrics") as response:
                page = await response.text()
            found = sum(
                float(line.rsplit(" ", 1)[1])
                for line in page.splitlines()
                if line.startswith("checkpoint_write_seconds_count")
            )
            if found == last:
                return found
            last = found
            await asyncio.sleep(6)


async def event_lag_ms(stage: Stage) -> dict[str, Any]:
    """From an event's time to its arrival at an SSE reader that follows a background run, same clock."""
    lags: list[float] = []
    url, headers = stage.runtime.url, stage.runtime.headers
    body = {"flow_type": DURABLE_FLOW, "prompt": PROMPT, "models": dict.fromkeys(("first", "second"), SLOW)}

    async def follow(client: aiohttp.ClientSession) -> None:
        async with client.post(f"{url}/api/runs", json=body) as response:
            run_id = (await response.json())["run_id"]
        async with client.get(f"{url}/api/runs/{run_id}/events") as stream:
            connected = time.time()
            async for line in stream.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    if event["type"] != "node.token" and event["time"] > connected:
                        lags.append(time.time() - event["time"])

    async with aiohttp.ClientSession(headers=headers) as client:
        for _ in range(READERS // 4):
            await asyncio.gather(*(follow(client) for _ in range(4)))
    return {
        "events": len(lags),
        "p50_ms": quantile_ms(lags, 0.5),
        "p95_ms": quantile_ms(lags, 0.95),
        "note": f"p50 {quantile_ms(lags, 0.5):.0f} ms, {len(lags)} events",
    }


async def _event_lag_beside_load(stage: Stage, target: Target) -> dict[str, Any]:
    """The same while other runs keep the machine busy."""
    async with session(BESIDE) as client:
        load = asyncio.create_task(closed_loop(client, target, BESIDE, seconds=600.0))
        try:
            return await event_lag_ms(stage)
        finally:
            load.cancel()
            await asyncio.wait({load})


def refuse_errors(sample: Sample) -> Sample:
    """A figure over failed requests would be a figure about errors."""
    if sample.errors:
        raise RuntimeError(f"{len(sample.errors)} runs failed, the first with {sample.errors[0]}")
    return sample


async def _alone(client: aiohttp.ClientSession, target: Target, requests: int) -> float:
    sample = refuse_errors(await closed_loop(client, target, 1, requests=requests))
    return quantile_ms(sample.latencies_s, 0.5)


async def _rates(client: aiohttp.ClientSession, targets: list[Target]) -> dict[str, list[Sample]]:
    """In blocks that take turns, so that a noisy minute hits both."""
    found: dict[str, list[Sample]] = {target.name: [] for target in targets}
    for _ in range(ROUNDS):
        for target in targets:
            sample = refuse_errors(await closed_loop(client, target, IN_FLIGHT, seconds=SECONDS))
            found[target.name].append(sample)
            say(f"{target.name}: {sample.rate:.0f} runs/s at {IN_FLIGHT} in flight")
    return found


async def _profile(stage: Stage) -> list[str] | None:
    pid = find_process(runtime_processes(stage.runtime.home), "FlowRunner")
    target = run_target(stage, "parley")
    async with session(IN_FLIGHT) as client:
        load = closed_loop(client, target, IN_FLIGHT, seconds=6)
        return None if pid is None else await profiled(pid, 4, load)
