"""What does a run cost that waits in the queue, is any lost, and is the order kept?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import psutil

from benchmarks.child import say
from benchmarks.process_tree import runtime_processes
from benchmarks.result import Finding, Row
from benchmarks.stage import DURABLE_FLOW, STUCK, Stage

QUESTION = "queued_runs"
QUEUED, BYTES_EACH = 10_000, 10.0
SENDERS, DRAIN_S = 16, 400.0
PROMPT = "How shall we store passwords?"


async def measure(stage: Stage) -> Finding:
    """Fill every slot with stuck runs, queue ten thousand behind them, weigh, let go, look at the ends."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        stage.runtime.url, headers=stage.runtime.headers, timeout=timeout
    ) as client:
        stuck = await _occupy(client)
        before = await asyncio.to_thread(_memory_bytes, stage)
        started = time.perf_counter()
        run_ids = await _enqueue(client)
        sending_s = time.perf_counter() - started
        say(f"{QUEUED} runs accepted in {sending_s:.0f} s")
        after = await asyncio.to_thread(_memory_bytes, stage)
        started = time.perf_counter()
        await asyncio.gather(*(client.post(f"/api/runs/{run_id}/cancel") for run_id in stuck))
        rows = await _drained(client, run_ids)
        drain_s = time.perf_counter() - started
    lost = [run_id for run_id in run_ids if rows.get(run_id, {}).get("status") != "completed"]
    overtaken = _overtakings(run_ids, rows)
    each_kb = (after - before) / QUEUED / 1000
    return Finding(
        QUESTION,
        (
            Row(f"queue: memory of each of {QUEUED} queued runs", each_kb, "kB", BYTES_EACH),
            Row("queue: runs lost or failed", len(lost), "", 0.0, note=f"drained in {drain_s:.0f} s"),
            Row("queue: runs begun before an older one of their priority", overtaken, "", 0.0),
        ),
        {"accepted_per_s": QUEUED / sending_s, "drained_per_s": QUEUED / drain_s, "lost": lost[:20]},
    )


async def _occupy(client: aiohttp.ClientSession) -> list[str]:
    """Stuck runs until one of them has to wait: then no runner has a slot left."""
    body = {"flow_type": DURABLE_FLOW, "prompt": PROMPT, "models": {"first": STUCK}, "priority": 10}
    run_ids: list[str] = []
    while True:
        for _ in range(16):
            async with client.post("/api/runs", json={**body, "deadline_s": 3600}) as response:
                run_ids.append((await response.json())["run_id"])
        await asyncio.sleep(3.0)
        queued = await _rows(client, "queued")
        if queued and len(await _rows(client, "running")) + len(queued) == len(run_ids):
            return run_ids


async def _enqueue(client: aiohttp.ClientSession) -> list[str]:
    body = {"flow_type": DURABLE_FLOW, "prompt": PROMPT, "deadline_s": 3600}
    numbers = iter(range(QUEUED))
    run_ids: list[str] = []

    async def sender() -> None:
        for _ in numbers:
            async with client.post("/api/runs", json=body) as response:
                answer = await response.json()
                if response.status != 202:
                    raise RuntimeError(f"a run was refused: {response.status} {answer}")
                run_ids.append(answer["run_id"])

    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return run_ids


async def _drained(client: aiohttp.ClientSession, run_ids: list[str]) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + DRAIN_S
    while await _rows(client, "queued", limit=1) or await _rows(client, "running", limit=1):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(1.0)
    wanted = set(run_ids)
    return {row["run_id"]: row for row in await _rows(client, None) if row["run_id"] in wanted}


async def _rows(
    client: aiohttp.ClientSession, status: str | None, limit: int | None = None
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": str(limit or 200), **({"status": status} if status else {})}
    while True:
        async with client.get("/api/runs", params=query) as response:
            page = await response.json()
        found += page["runs"]
        if limit is not None or page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def _overtakings(run_ids: list[str], rows: dict[str, dict[str, Any]]) -> int:
    """Runs that began before one that was accepted a whole claim's portion earlier.

    Acceptance is by run: those accepted at the same moment by different senders have no order among them, and
    a runner takes up to 32 at once; what counts is that none begins before one that is older than these.
    """
    ordered = sorted((rows[r]["created_at"], rows[r]["started_at"]) for r in run_ids if r in rows)
    window = SENDERS + 64
    begun = [began for _, began in ordered]
    return sum(later < earlier for earlier, later in zip(begun, begun[window:], strict=False))


def _memory_bytes(stage: Stage) -> int:
    total = 0
    for process in runtime_processes(stage.runtime.home):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total
