"""The processes that an engine started, so that its end is theirs."""

from __future__ import annotations

import psutil


def children_of(pid: int) -> set[psutil.Process]:
    """Every descendant that lives now; psutil tells a reused pid from the process it saw.

    Without Python's resource tracker: it serves the whole process, ignores signals and ends with it.
    """
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    return {child for child in children if not _is_resource_tracker(child)}


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in part for part in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def end_processes(processes: set[psutil.Process], grace_s: float = 2.0) -> list[int]:
    """Terminate, wait ``grace_s`` seconds, kill what is left; returns the killed pids."""
    living = [process for process in processes if process.is_running()]
    everyone = {child for process in living for child in children_of(process.pid)} | set(living)
    for process in everyone:
        _signal(process, kill=False)
    _, stubborn = psutil.wait_procs(list(everyone), timeout=grace_s)
    for process in stubborn:
        _signal(process, kill=True)
    psutil.wait_procs(stubborn, timeout=grace_s)
    return [process.pid for process in stubborn]


def _signal(process: psutil.Process, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
