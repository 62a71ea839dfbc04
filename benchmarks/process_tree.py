"""CPU time and memory of a runtime's processes, wherever they were started from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from serve_app.lifecycle.processes import marked_processes

# The control plane of Ray and of Serve: it works without requests, and not for them.
CONTROL_PLANE = (
    "gcs_server",
    "raylet",
    "dashboard",
    "agent",
    "log_monitor",
    "monitor.py",
    "client.server",
    "servecontroller",
    "proxyactor",
    "haproxymanager",
    "serve_app.app",
)


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU seconds of every process so far, by (pid, start time)."""

    seconds: Mapping[tuple[int, float], float]
    names: Mapping[tuple[int, float], str] = field(default_factory=dict)


def runtime_processes(home: Path) -> list[psutil.Process]:
    """All processes that carry the marker of this PARLEY_HOME."""
    return marked_processes(home)


def with_children(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def read_cpu(processes: Iterable[psutil.Process]) -> CpuReading:
    """User and system seconds; processes that are gone are left out."""
    seconds: dict[tuple[int, float], float] = {}
    names: dict[tuple[int, float], str] = {}
    for process in processes:
        try:
            times, key = process.cpu_times(), (process.pid, process.create_time())
            seconds[key] = times.user + times.system
            names[key] = title_of(process)
        except psutil.Error:
            continue
    return CpuReading(seconds, names)


def cpu_between(before: CpuReading, after: CpuReading) -> dict[str, float]:
    """Seconds by process title; a process that began in between counts from zero."""
    spent: dict[str, float] = {}
    for key, seconds in after.seconds.items():
        used = seconds - before.seconds.get(key, 0.0)
        if used > 0:
            spent[after.names[key]] = spent.get(after.names[key], 0.0) + used
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def serving(spent: Mapping[str, float]) -> float:
    """CPU seconds of processes on a request's way: everything but the control plane."""
    return sum(s for title, s in spent.items() if not any(part in title.lower() for part in CONTROL_PLANE))


def title_of(process: psutil.Process) -> str:
    """What the process says it is: Ray's workers by their titles, others by module or name."""
    command = process.cmdline()
    text = " ".join(command)
    if text.startswith("ray::"):
        return text.split()[0].removeprefix("ray::")
    if "-m" in command and command.index("-m") + 1 < len(command):
        return command[command.index("-m") + 1]
    scripts = [Path(part).name for part in command[1:] if part.endswith(".py")]
    return scripts[0] if scripts else process.name()


def memory_mb(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Proportional set size by title in MB (2**20): shared pages count once over all sharers."""
    sizes: dict[str, float] = {}
    for process in processes:
        size = _pss_bytes(process.pid)
        if size is not None:
            title = safe_title(process)
            sizes[title] = sizes.get(title, 0.0) + size / 1024**2
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def safe_title(process: psutil.Process) -> str:
    """The same, "gone" for one that is."""
    try:
        return title_of(process)
    except psutil.Error:
        return "gone"


def _pss_bytes(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
