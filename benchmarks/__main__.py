"""``python -m benchmarks``: every question, one table. ``--only NAME`` for some of them."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path

import aiohttp

from benchmarks import durable_runs, fanout, gateway_overhead, memory, queued_runs, recovery, start, tokens
from benchmarks.bench_database import bench_database
from benchmarks.bench_model import BENCH_MODEL
from benchmarks.child import say
from benchmarks.machine import machine_facts
from benchmarks.parley_runtime import parley_runtime
from benchmarks.result import RESULTS, Finding, read_reasons, table, write_json
from benchmarks.stage import stage

QUESTIONS = (
    "start",
    "memory",
    "gateway_overhead",
    "fanout",
    "durable_runs",
    "durable_runs_postgres",
    "queued_runs",
    "recovery",
    "tokens",
)
DEFAULT_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"


class Session:
    """The questions of one run; one that cannot be answered does not take the others along."""

    def __init__(self, wanted: Sequence[str], folder: Path, cache: Path) -> None:
        self.findings: list[Finding] = []
        self.failed: list[str] = []
        self._wanted = frozenset(wanted)
        self._folder = folder
        self._cache = cache

    async def run(self) -> None:
        """Start and memory on the default runtime; the rest on one with the bench's models.

        SIGTERM cancels it, so that every runtime, upstream and engine that was started is ended again.
        """
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if {"start", "memory"} & self._wanted:
            await self._guard("start", self._default_runtime())
        if {"gateway_overhead", "fanout", "durable_runs", "tokens"} & self._wanted:
            await self._guard("the bench's runtime", self._bench_runtime())
        if "queued_runs" in self._wanted:
            await self._guard("queued_runs", self._queue_runtime())
        if "recovery" in self._wanted:
            await self._guard("recovery", self._recovery_runtime())
        if "durable_runs_postgres" in self._wanted:
            await self._guard("durable_runs_postgres", self._postgres_runtime())

    async def _default_runtime(self) -> None:
        async with parley_runtime(_sub(self._folder, "default")) as runtime:
            # memory is that of a runtime that has answered, so the first deliberation runs in any case
            started = await start.measure(runtime)
            self.findings += [started] if "start" in self._wanted else []
            if "memory" in self._wanted:
                await self._ask("memory", memory.measure(runtime))

    async def _bench_runtime(self) -> None:
        local = (BENCH_MODEL, tokens.NANO) if "tokens" in self._wanted else (tokens.NANO,)
        async with stage(_sub(self._folder, "bench"), self._cache, local) as staged:
            if "gateway_overhead" in self._wanted:
                await self._ask("gateway_overhead", gateway_overhead.measure(staged))
            if "fanout" in self._wanted:
                await self._ask("fanout", fanout.measure(staged))
            if "durable_runs" in self._wanted:
                await self._ask("durable_runs", durable_runs.measure(staged))
            if "tokens" in self._wanted:
                await self._ask("tokens", tokens.measure(staged, with_nano=True))

    async def _queue_runtime(self) -> None:
        async with stage(_sub(self._folder, "queue"), self._cache, (tokens.NANO,)) as staged:
            await self._ask("queued_runs", queued_runs.measure(staged))

    async def _recovery_runtime(self) -> None:
        async with stage(_sub(self._folder, "recovery"), self._cache, (tokens.NANO,)) as staged:
            await self._ask("recovery", recovery.measure(staged))

    async def _postgres_runtime(self) -> None:
        with bench_database() as url:
            settings = {"PARLEY_STORE_URL": url}
            async with stage(_sub(self._folder, "postgres"), self._cache, (tokens.NANO,), settings) as staged:
                await self._ask("durable_runs_postgres", durable_runs.measure_postgres(staged))

    async def _ask(self, question: str, answer: Awaitable[Finding]) -> None:
        async def add() -> None:
            self.findings.append(await answer)

        await self._guard(question, add())

    async def _guard(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (RuntimeError, OSError, TimeoutError, aiohttp.ClientError) as error:
            say(f"{what} could not be measured: {error}")
            self.failed.append(what)


def _sub(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the JSON files, print the table; a missed budget is no failure, an unmeasured one is."""
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
        session = Session(options.only or QUESTIONS, Path(folder), options.cache.resolve())
        try:
            asyncio.run(session.run())
        except (asyncio.CancelledError, KeyboardInterrupt):
            say("interrupted; what was started has been ended")
            return 130
    for finding in session.findings:
        write_json(finding, machine, options.results)
    facts = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    print(f"\n{facts}, Python {machine['python']}\n")
    print("\n".join(table(session.findings, read_reasons())))
    say(f"done in {time.perf_counter() - began:.0f} s; raw figures in {options.results}")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
