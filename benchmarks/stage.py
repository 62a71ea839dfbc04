"""What the benchmarks of one run share: upstreams, the runtime under test, and where files go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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
INSTANT, SLOW = "bench-instant", "bench-slow"
INLINE_FLOW = "bench_inline"
TASK_FLOW = "multi_perspective"


@dataclass(frozen=True, slots=True)
class Stage:
    """A loaded runtime with the bench's models, and the upstreams behind two of them."""

    runtime: ParleyRuntime
    instant_url: str
    slow_url: str
    folder: Path
    cache: Path
    model_folder: Path


@asynccontextmanager
async def stage(folder: Path, cache: Path, local_models: tuple[str, ...]) -> AsyncIterator[Stage]:
    """A runtime with an instant and a slow remote model, and these local ones loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        instant = await stack.enter_async_context(upstream(folder))
        slow = await stack.enter_async_context(upstream(folder, latency_s=SLOW_S))
        model_folder = cache / BENCH_MODEL
        if BENCH_MODEL in local_models:
            make_bench_model(model_folder)
        catalog = folder / "catalog"
        write_catalog(catalog, instant, slow, model_folder, with_local=BENCH_MODEL in local_models)
        settings = {"PARLEY_CATALOG_DIRS": str(catalog), "PARLEY_MODELS": ",".join(local_models)}
        runtime = await stack.enter_async_context(parley_runtime(folder, settings))
        ready_s = await runtime.await_ready()
        say(f"{', '.join(local_models)} ready after {ready_s:.1f} s")
        yield Stage(runtime, instant, slow, folder, cache, model_folder)


def write_catalog(
    folder: Path, instant_url: str, slow_url: str, model_folder: Path, with_local: bool
) -> None:
    """A catalog folder: the bench's models, and the experts' flow with its experts inline."""
    models = [_remote(INSTANT, instant_url), _remote(SLOW, slow_url)]
    if with_local:
        models.append(_local(model_folder))
    (folder / "flows").mkdir(parents=True, exist_ok=True)
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    flow = json.loads(load_catalog(RuntimeConfig(home="")).flows.get(TASK_FLOW).model_dump_json())
    flow |= {"name": INLINE_FLOW, "nodes": [{**node, "placement": "inline"} for node in flow["nodes"]]}
    (folder / "flows" / f"{INLINE_FLOW}.yaml").write_text(yaml.safe_dump(flow, sort_keys=False))


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
