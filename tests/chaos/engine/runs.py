"""Configurations and runs of the fault tests, and what they come to without a fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.stores.open_store import open_store
from actors.stores.records import IdempotencyKey, NewRun
from actors.stores.store import Store
from registries.catalog import Catalog
from registries.contracts.config import LeaseConfig, RuntimeConfig
from registries.contracts.runs import RunOrder, RunRequest
from registries.loader import load_catalog
from tests.chaos.engine.checker import TENANT
from tests.chaos.engine.process import EngineSpec
from tests.chaos.engine.stage import Stage, all_ended, engines
from tests.machine_pace import paced

CATALOG = load_catalog()


def config_for(folder: Path, **changes: Any) -> RuntimeConfig:
    """With short leases, so that a dead engine's runs are soon taken over; as often as it must be."""
    lease = LeaseConfig(ttl_s=1.0, scan_s=0.2, max_deaths=changes.pop("max_deaths", 1_000))
    return RuntimeConfig(**{"home": str(folder), "lease": lease, **changes})


def spec_for(config: RuntimeConfig, **changes: Any) -> EngineSpec:
    """Engines of this configuration, with a journal in its home."""
    return EngineSpec(
        config_json=config.model_dump_json(), journal=str(Path(config.home) / "journal.jsonl"), **changes
    )


def run_id_of(number: int) -> str:
    """Ids sort by number."""
    return f"run-{number:05d}"


def new_run(
    number: int,
    flow: str = "challenge",
    deadline_s: float = 600.0,
    catalog: Catalog = CATALOG,
    key: IdempotencyKey | None = None,
    **request: object,
) -> NewRun:
    """A run of that number."""
    asked = RunRequest.model_validate({"prompt": "What is 48 + 37?", "flow_type": flow, **request})
    order = RunOrder(
        run_id=run_id_of(number), request_id=f"req-{number}", request=asked, deadline_s=deadline_s
    )
    spec = catalog.flows.get(flow)
    return NewRun(order, spec.version, spec.model_dump(mode="json"), key=key)


async def runs_under_kills(
    store: Store,
    stage: Stage,
    runs: int,
    enough: Callable[[], bool],
    timeout_s: float,
    flow: str = "challenge",
) -> list[str]:
    """At least so many runs, and as many more as it takes until there was ``enough``; all have ended."""
    run_ids: list[str] = []
    more = runs
    begun = time.monotonic()
    # A little later than the wait itself gives up: that one says which runs have not ended.
    async with asyncio.timeout(paced(timeout_s) + 5):
        while more:
            numbers = range(len(run_ids), len(run_ids) + more)
            run_ids += [(await store.accept(new_run(number, flow))).run_id for number in numbers]
            left_s = timeout_s - (time.monotonic() - begun) / paced(1.0)
            await all_ended(store, run_ids[-more:], left_s)
            more = 0 if enough() else 20
    return run_ids


async def reference_result(folder: Path, flow: str = "challenge") -> dict[str, Any]:
    """The same request without any fault."""
    config = config_for(folder)
    store = await open_store(config)
    await store.accept(new_run(0, flow))
    async with engines(spec_for(config), 1):
        await all_ended(store, [run_id_of(0)], 30)
    run = await store.get(run_id_of(0), TENANT)
    await store.close()
    assert run is not None
    result: dict[str, Any] = run["result"]
    assert result["status"] == "completed"
    return result
