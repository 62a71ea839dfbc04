"""Where the time of a missed budget went: py-spy on the process that spent it."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import psutil

TOP = 12


async def profiled(pid: int, seconds: float, load: Awaitable[object]) -> list[str] | None:
    """Where the interpreter lock was held most while ``load`` ran; None without py-spy or its rights."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    task = asyncio.ensure_future(load)
    try:
        if program is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stacks.txt"
            what = ["--pid", str(pid), "--duration", f"{seconds:.0f}", "--rate", "200", "--gil"]
            process = await asyncio.create_subprocess_exec(
                *[program, "record", *what, "--format", "raw", "--output", str(path)],
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()
            return top_functions(path.read_text()) if path.exists() else None
    finally:
        await task


def top_functions(folded: str, top: int = TOP) -> list[str]:
    """``12.3 % function (file:line)`` from folded stacks, by the samples in which it was innermost."""
    own: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            own[stack.split(";")[-1]] += int(count)
    total = sum(own.values())
    return [f"{100 * count / total:.1f} % {name}" for name, count in own.most_common(top)]


def find_process(processes: list[psutil.Process], title: str) -> int | None:
    """The pid whose command line holds ``title``."""
    for process in processes:
        try:
            if title in " ".join(process.cmdline()):
                return process.pid
        except psutil.Error:
            continue
    return None
