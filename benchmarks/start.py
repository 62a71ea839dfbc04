"""How long until the API answers, and until the first deliberation is there, on an installed machine?"""

from __future__ import annotations

import time

from benchmarks.parley_runtime import ParleyRuntime
from benchmarks.result import Finding, Row

QUESTION = "start"
API_READY_S, FIRST_ANSWER_S = 25.0, 90.0


async def measure(runtime: ParleyRuntime) -> Finding:
    """Right after `parley up` with the default settings."""
    models_ready_s = await runtime.await_ready()
    answer = await runtime.post("/api/orchestrate", {"flow_type": "challenge", "prompt": "What is 48 + 37?"})
    first_answer_s = time.perf_counter() - runtime.started
    if answer.get("status") != "completed":
        raise RuntimeError(f"the first deliberation did not complete: {answer}")
    rows = (
        Row("start: command to API ready", runtime.api_ready_s, "s", API_READY_S),
        Row("start: command to first deliberation", first_answer_s, "s", FIRST_ANSWER_S),
    )
    details = {"models_ready_s": round(models_ready_s, 2), "deliberation_s": answer["timings"]["total_s"]}
    return Finding(QUESTION, rows, details)
