"""The instruments: load, CPU and memory readings, profiles, the bench's model and catalog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from benchmarks.bench_model import VOCABULARY, prompt_of
from benchmarks.load import Target, closed_loop, open_loop, quantile_ms, session
from benchmarks.machine import machine_facts
from benchmarks.process_tree import CpuReading, cpu_between, memory_mb, read_cpu, serving, title_of
from benchmarks.profile import top_functions
from benchmarks.stage import DURABLE_FLOW, INLINE_FLOW, INSTANT, SLOW, write_catalog
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog
from tests.machine_pace import paced


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        return web.Response(status=body["status"], text="x")

    application = web.Application()
    application.router.add_post("/ask", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/ask"
    await runner.cleanup()


async def test_the_closed_loop_asks_as_often_as_it_was_told(server: str) -> None:
    async with session(4) as client:
        sample = await closed_loop(client, Target("ok", server, {"status": 200}), 4, requests=30)
        timed = await closed_loop(client, Target("ok", server, {"status": 200}), 2, seconds=0.05)
    assert (len(sample.latencies_s), sample.errors) == (30, [])
    assert timed.latencies_s and timed.rate > 0


async def test_failures_are_counted_and_not_timed(server: str) -> None:
    async with session(2) as client:
        sample = await closed_loop(client, Target("bad", server, {"status": 503}), 2, requests=3)
    assert sample.latencies_s == []
    assert len(sample.errors) == 3 and "503" in sample.errors[0]


async def test_the_open_loop_counts_from_when_a_request_was_due(server: str) -> None:
    async with session(8) as client:
        sample = await open_loop(client, Target("ok", server, {"status": 200}), 100, 0.1)
    assert len(sample.latencies_s) == 10
    assert all(latency >= 0 for latency in sample.latencies_s)


def test_quantiles_are_milliseconds() -> None:
    assert quantile_ms([0.001, 0.002, 0.003], 0.5) == 2
    assert quantile_ms([0.001, 0.002], 0.99) == 2


def test_cpu_is_summed_by_title_and_new_processes_count() -> None:
    before = CpuReading({(1, 0.0): 5.0, (2, 0.0): 1.0})
    names = {(1, 0.0): "Ingress", (2, 0.0): "DashboardAgent", (3, 9.0): "Ingress"}
    after = CpuReading({(1, 0.0): 7.0, (2, 0.0): 1.5, (3, 9.0): 0.25}, names)
    spent = cpu_between(before, after)
    assert spent == {"Ingress": 2.25, "DashboardAgent": 0.5}
    assert serving(spent) == 2.25


def test_this_process_can_be_read() -> None:
    me = psutil.Process(os.getpid())
    reading = read_cpu([me])
    assert sum(reading.seconds.values()) > 0
    assert sum(memory_mb([me]).values()) > 1
    assert title_of(me)


def test_profiles_show_the_innermost_functions() -> None:
    folded = "main (a.py);work (b.py) 30\nmain (a.py);wait (c.py) 10\nnot a stack\n"
    assert top_functions(folded) == ["75.0 % work (b.py)", "25.0 % wait (c.py)"]
    assert top_functions("") == []


def test_facts_of_the_machine_name_no_machine() -> None:
    facts = machine_facts()
    assert facts["cores"] == os.cpu_count()
    assert facts["versions"]["ray"]
    assert os.uname().nodename not in str(facts)


def test_prompts_differ_and_are_in_the_vocabulary() -> None:
    prompts = [prompt_of(number) for number in range(50)]
    assert len({prompt.split()[0] for prompt in prompts}) == 50
    assert all(1 <= int(word[1:]) < VOCABULARY for prompt in prompts for word in prompt.split())


def test_the_catalog_of_the_bench_loads(tmp_path: Path) -> None:
    urls = {INSTANT: "http://127.0.0.1:1/v1", SLOW: "http://127.0.0.1:2/v1"}
    write_catalog(tmp_path, urls, tmp_path, with_local=True)
    catalog = load_catalog(RuntimeConfig(home="/h", catalog_dirs=(str(tmp_path),)))
    assert {INSTANT, SLOW, "bench-100m"} <= set(catalog.models.names())
    three = catalog.flows.get(DURABLE_FLOW)
    assert len(three.nodes) == 3 and {node.model for node in three.nodes} == {INSTANT}
    inline = catalog.flows.get(INLINE_FLOW)
    assert {node.placement for node in inline.nodes} == {"inline"}
    assert [node.id for node in inline.nodes] == [
        node.id for node in catalog.flows.get("multi_perspective").nodes
    ]


async def test_children_end_with_everything_below_them(tmp_path: Path) -> None:
    from actors.free_ports import free_port
    from benchmarks.child import await_http, running

    log = tmp_path / "child.log"
    async with running(["sh", "-c", "sleep 60 & sleep 60"], log, os.environ) as process:
        family = [psutil.Process(process.pid)]
        async with asyncio.timeout(paced(10)):
            while len(family) < 3:
                await asyncio.sleep(0.01)
                family = [family[0], *family[0].children(recursive=True)]
        with pytest.raises(RuntimeError, match="did not answer"):
            await await_http(f"http://127.0.0.1:{free_port()}", process, log, 0.2)
    assert not any(each.is_running() for each in family)
