"""The bare parts as a target of load, deployed beside the runtime and removed again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.bare_parts import APP, ROUTE
from benchmarks.load import Target
from benchmarks.stage import Stage

_DEPLOY = "from benchmarks.bare_parts import deploy; deploy({url!r})"
_REMOVE = "from benchmarks.bare_parts import remove; remove()"


@asynccontextmanager
async def bare_target(stage: Stage, prompt: str) -> AsyncIterator[Target]:
    """Raises RuntimeError with the job's last words when they cannot be deployed."""
    await _job(stage, _DEPLOY.format(url=stage.instant_url))
    try:
        yield Target(APP, f"{stage.runtime.url}{ROUTE}/", {"prompt": prompt})
    finally:
        await _job(stage, _REMOVE)


async def _job(stage: Stage, code: str) -> None:
    """A Ray job on the runtime's cluster, submitted as an operator does it."""
    runtime = stage.runtime
    environment = {
        **runtime.environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": (runtime.home / "ray.token").read_text().strip(),
    }
    address = f"http://127.0.0.1:{runtime.environment['PARLEY_DASHBOARD_PORT']}"
    submit = ["job", "submit", "--address", address, "--", sys.executable, "-c", code]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "ray"),
        *submit,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=stage.folder,
    )
    told, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the bare parts: {told.decode(errors='replace')[-1500:]}")
