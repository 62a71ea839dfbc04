"""What the benchmarks of one run share: upstreams, the runtime under test, and where files go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bench_model import BENCH_MODEL, make_bench_model
from benchmarks.child import say
from benchmarks.parley_runtime import ParleyRuntime, parley_runtime
from benchmarks.upstream import upstream
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog

SLOW_S = 0.2
STUCK_S = 900.0
INSTANT, SLOW, STUCK = "bench-instant", "bench-slow", "bench-stuck"
INLINE_FLOW = "bench_inline"
TASK_FLOW = "multi_perspective"
DURABLE_FLOW = "bench_three"


@dataclass(frozen=True, slots=True)
class Stage:
    """A loaded runtime with the bench's models, and the upstreams behind two of them."""

    runtime: ParleyRuntime
    instant_url: str
    slow_url: str
    stuck_url: str
    folder: Path
    cache: Path
    model_folder: Path


@asynccontextmanager
async def stage(
    folder: Path, cache: Path, local_models: tuple[str, ...], more: Mapping[str, str] | None = None
) -> AsyncIterator[Stage]:
    """A runtime with an instant, a slow and a stuck remote model, these local ones loaded, more settings."""
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        instant = await stack.enter_async_context(upstream(folder))
        slow = await stack.enter_async_context(upstream(folder, latency_s=SLOW_S))
        stuck = await stack.enter_async_context(upstream(folder, latency_s=STUCK_S))
        model_folder = cache / BENCH_MODEL
        if BENCH_MODEL in local_models:
            make_bench_model(model_folder)
        catalog = folder / "catalog"
        urls = {INSTANT: instant, SLOW: slow, STUCK: stuck}
        write_catalog(catalog, urls, model_folder, with_local=BENCH_MODEL in local_models)
        settings = {"PARLEY_CATALOG_DIRS": str(catalog), "PARLEY_MODELS": ",".join(local_models)}
        settings |= more or {}
        runtime = await stack.enter_async_context(parley_runtime(folder, settings))
        ready_s = await runtime.await_ready()
        say(f"{', '.join(local_models)} ready after {ready_s:.1f} s")
        yield Stage(runtime, instant, slow, stuck, folder, cache, model_folder)


def write_catalog(folder: Path, urls: Mapping[str, str], model_folder: Path, with_local: bool) -> None:
    """A catalog folder: the bench's models, the experts' flow with its experts inline, a flow of three."""
    models = [_remote(key, url) for key, url in urls.items()]
    if with_local:
        models.append(_local(model_folder))
    (folder / "flows").mkdir(parents=True, exist_ok=True)
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    flow = json.loads(load_catalog(RuntimeConfig(home="")).flows.get(TASK_FLOW).model_dump_json())
    flow |= {"name": INLINE_FLOW, "nodes": [{**node, "placement": "inline"} for node in flow["nodes"]]}
    (folder / "flows" / f"{INLINE_FLOW}.yaml").write_text(yaml.safe_dump(flow, sort_keys=False))
    (folder / "flows" / f"{DURABLE_FLOW}.yaml").write_text(yaml.safe_dump(_three_nodes(), sort_keys=False))


def _three_nodes() -> dict[str, Any]:
    names = ("first", "second", "third")
    return {
        "name": DURABLE_FLOW,
        "description": "Three models after one another, instant by default.",
        "input": ["prompt"],
        "nodes": [
            {"id": n, "kind": "generate", "role": n, "prompt": "create", "model": INSTANT} for n in names
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(names)],
        "output": {"answer": ["third"], "baseline": "first"},
    }


def _remote(key: str, url: str) -> dict[str, Any]:
    return {
        "key": key,
        "family": "general",
        "provider": key,
        "engine": "openai_compatible",
        "location": "bench",
        "base_url": url,
        "context_window": 8192,
        "default_strategy": "optimized",
    }


def _local(model_folder: Path) -> dict[str, Any]:
    return {
        "key": BENCH_MODEL,
        "family": "general",
        "provider": "local",
        "engine": "vllm",
        "location": str(model_folder),
        "context_window": 1024,
        "max_output_tokens": 512,
        "default_strategy": "optimized",
        "scaling": {"min_replicas": 1, "max_replicas": 1, "max_ongoing_requests": 64, "num_cpus": 0.5},
    }
