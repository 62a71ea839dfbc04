"""The model provider of the gateway's benchmarks: the scripted engine over HTTP, instant or slow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.free_ports import free_port
from benchmarks.child import await_http, running

ANSWER = "This is a scripted answer of sixteen words, which stands in for a model's own."


@asynccontextmanager
async def upstream(folder: Path, latency_s: float = 0.0) -> AsyncIterator[str]:
    """A scripted server in a process of its own; yields its base URL (ends in /v1)."""
    port = free_port()
    script = folder / f"script-{port}.json"
    script.write_text(
        json.dumps({"answers": [{"texts": [ANSWER], "latency_s": latency_s}], "models": ["bench"]})
    )
    log = folder / f"upstream-{port}.log"
    command = [
        sys.executable,
        "-m",
        "actors.engines.scripted_server",
        "--port",
        str(port),
        "--script",
        str(script),
    ]
    async with running(command, log, os.environ) as process:
        base_url = f"http://127.0.0.1:{port}/v1"
        await await_http(f"{base_url}/models", process, log, 30)
        yield base_url
