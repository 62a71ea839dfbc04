"""``python -m benchmarks``: every question, one table. ``--only NAME`` for some of them."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fanout, gateway_overhead, memory, start, tokens
from benchmarks.bench_model import BENCH_MODEL
from benchmarks.child import say
from benchmarks.machine import machine_facts
from benchmarks.parley_runtime import parley_runtime
from benchmarks.result import RESULTS, Finding, read_reasons, table, write_json
from benchmarks.stage import stage

QUESTIONS = ("start", "memory", "gateway_overhead", "fanout", "tokens")
DEFAULT_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"


async def measure(wanted: Sequence[str], folder: Path, cache: Path) -> list[Finding]:
    """Start and memory on the default runtime; the rest on one with the bench's models."""
    findings: list[Finding] = []
    if {"start", "memory"} & set(wanted):
        async with parley_runtime(_sub(folder, "default")) as runtime:
            started = await start.measure(runtime)
            findings += [started] if "start" in wanted else []
            findings += [await memory.measure(runtime)] if "memory" in wanted else []
    if {"gateway_overhead", "fanout", "tokens"} & set(wanted):
        local = (BENCH_MODEL, tokens.NANO) if "tokens" in wanted else (tokens.NANO,)
        async with stage(_sub(folder, "bench"), cache, local) as staged:
            if "gateway_overhead" in wanted:
                findings.append(await gateway_overhead.measure(staged))
            if "fanout" in wanted:
                findings.append(await fanout.measure(staged))
            if "tokens" in wanted:
                findings.append(await tokens.measure(staged, with_nano=True))
    return findings


def _sub(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the JSON files, print the table; a missed budget is told and is no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=QUESTIONS, help="a question; several times for several"
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="the peer and the bench's model")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    machine, began = machine_facts(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        try:
            findings = asyncio.run(measure(options.only or QUESTIONS, Path(folder), options.cache.resolve()))
        except RuntimeError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    for finding in findings:
        write_json(finding, machine, options.results)
    facts = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    print(f"\n{facts}, Python {machine['python']}\n")
    print("\n".join(table(findings, read_reasons())))
    say(f"done in {time.perf_counter() - began:.0f} s; raw figures in {options.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
