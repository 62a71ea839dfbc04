"""How much memory does everything that `make run` starts take?"""

from __future__ import annotations

from benchmarks.parley_runtime import ParleyRuntime
from benchmarks.process_tree import memory_mb, runtime_processes
from benchmarks.result import Finding, Row

QUESTION = "memory"
TREE_GB = 5.0


async def measure(runtime: ParleyRuntime) -> Finding:
    """After the first deliberation: proportional set size over every process of the runtime."""
    processes = runtime_processes(runtime.home)
    sizes = memory_mb(processes)
    total_gb = sum(sizes.values()) / 1024
    row = Row(
        "memory: the whole tree of `make run`", total_gb, "GB", TREE_GB, note=f"{len(processes)} processes"
    )
    return Finding(QUESTION, (row,), {"mb_by_process": {name: round(mb, 1) for name, mb in sizes.items()}})
