"""The peer: LiteLLM's proxy in an environment of its own, in front of the same upstream."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from actors.free_ports import free_port
from benchmarks.child import await_http, running, say

VERSION = "1.106.2"
MASTER_KEY = "sk-bench-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    base_url: str
    pid: int
    start_s: float


def ensure_environment(cache: Path) -> Path:
    """The Python of an environment with litellm[proxy]; made once, kept in the cache folder."""
    venv = cache / f"litellm-{VERSION}"
    python = venv / "bin" / "python"
    stamp = venv / ".complete"
    if not stamp.exists():
        say(f"installing litellm[proxy]=={VERSION} into an environment of its own (once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        subprocess.run([*pip, f"litellm[proxy]=={VERSION}"], check=True)
        stamp.write_text(VERSION)
    return python


@asynccontextmanager
async def litellm_proxy(cache: Path, folder: Path, upstream_url: str) -> AsyncIterator[Proxy]:
    """One worker, a master key, no database, no callbacks, no retries: the leanest proxy there is."""
    python = await asyncio.to_thread(ensure_environment, cache)
    parameters = {"model": "openai/bench", "api_base": upstream_url, "api_key": "none"}
    config = {
        "model_list": [{"model_name": "bench", "litellm_params": parameters}],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "general_settings": {"master_key": MASTER_KEY},
    }
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    port, log = free_port(), folder / "litellm.log"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [str(python.parent / "litellm"), "--config", str(path), *address, "--num_workers", "1"]
    environment = {n: v for n, v in os.environ.items() if n not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_DOCS": "True"}
    async with running(command, log, environment) as process:
        start_s = await await_http(f"http://127.0.0.1:{port}/health/liveliness", process, log, 90)
        yield Proxy(f"http://127.0.0.1:{port}/v1", process.pid, start_s)
