"""A runtime of the benchmark's own: temporary PARLEY_HOME, free ports, started by its commands."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from actors.free_ports import free_port
from benchmarks.child import await_http, say
from benchmarks.load import Target

READY_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class ParleyRuntime:
    """A running runtime. ``api_ready_s`` counts from the command to the first 200 of /api/health."""

    home: Path
    url: str
    key: str
    api_ready_s: float
    started: float
    folder: Path
    environment: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"X-API-Key": self.key}

    def inference(self, name: str, body: dict[str, Any]) -> Target:
        """Direct mode as a target of load."""
        return Target(name, f"{self.url}/api/inference", body, self.headers)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request; raises RuntimeError with the answer when it is not 200."""
        timeout = aiohttp.ClientTimeout(total=180)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=self.headers) as client,
            client.post(self.url + path, json=body) as response,
        ):
            answer = await response.json(content_type=None)
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {json.dumps(answer)[:500]}")
            return dict(answer)

    async def start_again(self) -> None:
        """`parley up` for a runtime that died; returns when its API answers, raises RuntimeError if not."""
        log = self.folder / "up-again.log"
        with log.open("wb") as output:
            up = await _parley(
                "up", "--no-wait", environment=self.environment, output=output, folder=self.folder
            )
            await await_http(f"{self.url}/api/health", None, log, 120)
            await up.wait()

    async def await_ready(self) -> float:
        """Seconds since the start until nothing is loading; raises RuntimeError when a part failed."""
        async with aiohttp.ClientSession(headers=self.headers) as client:
            while time.perf_counter() - self.started < READY_TIMEOUT_S:
                async with client.get(f"{self.url}/api/ready") as response:
                    facts = await response.json(content_type=None)
                if facts.get("status") == "ready":
                    return time.perf_counter() - self.started
                if facts.get("status") == "failed":
                    raise RuntimeError(f"a part of the runtime failed: {json.dumps(facts)[:1000]}")
                await asyncio.sleep(0.2)
        raise RuntimeError(
            f"the runtime was not ready within {READY_TIMEOUT_S:g} s: {json.dumps(facts)[:1000]}"
        )


@asynccontextmanager
async def parley_runtime(
    folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[ParleyRuntime]:
    """`parley up`, and in the end `parley down`, whatever happened in between."""
    home, port, key = folder / "home", free_port(), f"bench-{secrets.token_hex(16)}"
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        n: v
        for n, v in os.environ.items()
        if not n.startswith(("PARLEY_", "RAY_")) and not n.endswith("_API_KEY")
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    environment = kept | {
        "PARLEY_HOME": str(home),
        "PARLEY_API_KEY": key,
        "PORT": str(port),
        "PARLEY_DASHBOARD_PORT": str(free_port()),
        **(settings or {}),
    }
    log = folder / "up.log"
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    try:
        with log.open("wb") as output:
            up = await _parley("up", "--no-wait", environment=environment, output=output, folder=folder)
            await await_http(f"{url}/api/health", None, log, 120)
            api_ready_s = time.perf_counter() - started
            if await up.wait() != 0:
                raise RuntimeError(f"parley up failed:\n{log.read_text(errors='replace')[-2000:]}")
        say(f"the runtime's API is ready after {api_ready_s:.1f} s")
        yield ParleyRuntime(home, url, key, api_ready_s, started, folder, environment)
    finally:
        with (folder / "down.log").open("wb") as output:
            down = await _parley("down", environment=environment, output=output, folder=folder)
            await down.wait()


async def _parley(
    *arguments: str, environment: Mapping[str, str], output: Any, folder: Path
) -> asyncio.subprocess.Process:
    """In the bench's folder: a .env file of the project is no part of what is measured."""
    root = str(Path(__file__).resolve().parent.parent)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serve_app.cli.main",
        *arguments,
        env={**environment, "PYTHONPATH": root},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=folder,
    )
