"""Figures of a window, on every backend: the same document from the same runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from actors.stores.store import Store
from registries.contracts.errors import ParleyError
from registries.contracts.generation import Usage
from registries.contracts.runs import INHERITED, ErrorFact, Feedback, NodeTimings
from tests.conformance.stores.sample_runs import new_run, node_result, result, take, write

DAY_S = 86_400.0


async def run_through(
    store: Store,
    run_id: str,
    nodes: list[Any],
    status: Any = "completed",
    judged: Usage = Usage(),
    **changes: Any,
) -> None:
    claimed = await take(store, run_id, **changes)
    usage = sum((node.usage for node in nodes), judged)
    ended = result(run_id, status, nodes=tuple(nodes), usage=usage)
    await store.finish(claimed.lease, ended, write(claimed.lease, claimed.last_seq + 1, f"run.{status}"))


def call(id: str, duration_s: float, **changes: Any) -> Any:
    return node_result(id, timings=NodeTimings(duration_s=duration_s), **changes)


async def fill(store: Store) -> None:
    await run_through(store, "r1", [call("a", 1.0), call("b", 2.0, cache_hit=True)], user="ann")
    failed = call("a", 4.0, status="failed", error=ErrorFact(code="provider_error", message="away"))
    await run_through(store, "r2", [failed], "failed", user="eve", flow_type="other")
    vote = call("v", 9.0, model_resolved=None, attempts=(), usage=Usage())
    await run_through(store, "r3", [call("a", 3.0), vote], user="ann")
    await store.accept(new_run("r4", user="ann"))
    await run_through(store, "r5", [call("a", 1.0)], tenant="b")
    await store.give_feedback("r1", "default", "ann", Feedback(rating=1))
    await store.give_feedback("r2", "default", "eve", Feedback(rating=0.5))


async def figures(store: Store, tenant: str = "default", user: str | None = None) -> dict[str, Any]:
    now = time.time()
    return await store.statistics(now - DAY_S, now + DAY_S, tenant, user)


async def test_totals(store: Store) -> None:
    await fill(store)
    totals = (await figures(store))["totals"]
    latency = totals.pop("latency_s")
    assert totals == {
        "runs": 4,
        "by_status": {"queued": 1, "running": 0, "waiting": 0, "completed": 2, "failed": 1, "cancelled": 0},
        "success_rate": 2 / 3,
        "tokens": {"prompt": 40, "completion": 20, "total": 60},
        "cost_usd": 28e-6,
        "tool_calls": 0,
        "errors": {"provider_error": 1},
        "cache_hits": 1,
        "satisfaction": {"avg": 0.75, "count": 2},
    }
    assert latency["count"] == 3 and 0 <= latency["min"] <= latency["p50"] <= latency["p95"] == latency["max"]


async def test_parts(store: Store) -> None:
    await fill(store)
    shown = await figures(store)
    model = shown["by_model"]["tiny-model"]
    assert list(shown["by_model"]) == ["tiny-model"] and shown["by_provider"] == {"local": model}
    assert model["calls"] == 4 and model["by_status"] == {"completed": 3, "failed": 1, "skipped": 0}
    assert model["latency_s"] == {"count": 4, "avg": 2.5, "min": 1.0, "max": 4.0, "p50": 2.0, "p95": 4.0}
    assert model["satisfaction"] == {"avg": 0.75, "count": 2}
    assert {name: f["runs"] for name, f in shown["by_flow"].items()} == {"challenge": 3, "other": 1}
    assert {name: f["tokens"]["total"] for name, f in shown["by_user"].items()} == {"ann": 45, "eve": 15}


async def test_a_judge_counts_and_what_a_fork_took_over_does_not(store: Store) -> None:
    judged = Usage(prompt_tokens=30, completion_tokens=3, cost_micro_usd=50)
    await run_through(store, "r1", [call("a", 1.0)], judged=judged)
    inherited = call("a", 1.0, usage=Usage(), data={INHERITED: "r1"})
    await run_through(store, "fork", [inherited, call("b", 1.0)])
    shown = await figures(store)
    assert shown["totals"]["tokens"] == {"prompt": 50, "completion": 13, "total": 63}
    assert shown["totals"]["cost_usd"] == pytest.approx(64e-6)
    assert list(shown["by_model"]) == ["tiny-model"] and shown["by_model"]["tiny-model"]["calls"] == 2


async def test_one_user_one_tenant_one_window(store: Store) -> None:
    await fill(store)
    assert (await figures(store, user="eve"))["totals"]["runs"] == 1
    assert (await figures(store, "b"))["totals"]["runs"] == 1
    assert (await figures(store, "nobody"))["totals"]["runs"] == 0
    now = time.time()
    assert (await store.statistics(now - 2 * DAY_S, now - DAY_S, "default"))["totals"]["runs"] == 0


async def test_the_trend_adds_up(store: Store) -> None:
    await fill(store)
    shown = await figures(store)
    assert shown["step_s"] == 3600.0 and 48 <= len(shown["trend"]) <= 49
    assert sum(point["runs"] for point in shown["trend"]) == 4
    assert sum(point["tokens"]["total"] for point in shown["trend"]) == 60


async def test_a_closed_store_has_no_figures(store: Store) -> None:
    await store.close()
    with pytest.raises(ParleyError):
        await figures(store)
