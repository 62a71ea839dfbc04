"""Processes that a benchmark starts, and ends again with everything below them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil


@asynccontextmanager
async def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    piped: bool = False,
    folder: Path | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the command in ``folder``, output in ``log`` (or stdin and stdout piped); ended at the exit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if piped else output,
            stderr=output,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process, patience_s: float = 5.0) -> None:
    """TERM to a process and all below it, KILL to what is left; asyncio alone waits for its own child."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        below = []
    if process.returncode is None:
        process.terminate()
    for each in below:
        _quietly(each.terminate)
    _, alive = await asyncio.to_thread(psutil.wait_procs, below, patience_s)
    for each in alive:
        _quietly(each.kill)
    try:
        await asyncio.wait_for(process.wait(), patience_s)
    except TimeoutError:
        process.kill()
        await process.wait()


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.Error:
        return


async def await_http(
    url: str, process: asyncio.subprocess.Process | None, log: Path, timeout_s: float
) -> float:
    """Seconds until the address answers 200; raises RuntimeError with the log's end when it does not."""
    started = time.perf_counter()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
        while time.perf_counter() - started < timeout_s:
            if process is not None and process.returncode is not None:
                break
            try:
                async with client.get(url) as response:
                    if response.status == 200:
                        return time.perf_counter() - started
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"{url} did not answer within {timeout_s:g} s\n{tail}")


def say(text: str) -> None:
    """Progress, on stderr: stdout is the table's."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
