"""One /metrics page for the whole cluster."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_flow_runner import collect, order
from tests.polling import until
from tests.runtime_cluster import RunningCluster

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
STALE_AFTER_S = 6.0
"""Beyond the four seconds (two report intervals) for which Ray's agent keeps a gauge that nobody repeats."""
COUNTED = frozenset({"run_status_total", "orchestration_duration_seconds_count", "tokens_total"})


def samples_of(cluster: RunningCluster) -> Samples:
    """The page as it comes: without a node's series when its agent did not answer in time, as it says."""
    request = urllib.request.Request(f"{cluster.base_url}/metrics", headers=cluster.headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        page = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (found, have), value in samples.items() if found == name and wanted <= have)


def has(samples: Samples, name: str, **labels: str) -> bool:
    wanted = set(labels.items())
    return any(found == name and wanted <= have for found, have in samples)


def is_complete(samples: Samples) -> bool:
    return total(samples, "metrics_scrape_failed") == 0


async def settled_samples(cluster: RunningCluster) -> Samples:
    """The page once nothing is counted any more: what runs have done by now may reach it seconds later."""
    page: Samples = {}
    counted: Samples = {}
    since = time.monotonic()

    def unchanged() -> bool:
        nonlocal page, counted, since
        page = samples_of(cluster)
        now = {key: value for key, value in page.items() if key[0] in COUNTED}
        if now != counted or not is_complete(page):
            counted, since = now, time.monotonic()
        return time.monotonic() - since > STALE_AFTER_S

    await until(unchanged, 60, every_s=0.5)
    return page


async def test_runs_models_and_tokens_are_counted_once(cluster: RunningCluster, runner: Any) -> None:
    before = await settled_samples(cluster)
    for flow in ("challenge", "challenge", "multi_perspective"):
        await collect(runner, order(flow, target="85"))

    def gained(name: str, **labels: str) -> float:
        return total(now, name, **labels) - total(before, name, **labels)

    now: Samples = {}

    def counted() -> bool:
        nonlocal now
        now = samples_of(cluster)
        done = gained("workflow_executions_total", workflow_type="challenge", status="completed") >= 2
        experts = gained("step_executions_total", tool="generate", status="completed") >= 3
        return done and experts and gained("tokens_total", model="fast", direction="completion") > 0

    await until(counted, 30, every_s=0.5)
    now = await settled_samples(cluster)
    assert gained("workflow_executions_total", workflow_type="challenge") == 2
    assert gained("workflow_executions_total", workflow_type="multi_perspective") == 1
    assert gained("workflow_duration_seconds_count", workflow_type="challenge") == 2
    assert gained("orchestration_duration_seconds_count", status="completed") == 3
    assert gained("run_status_total", status="completed") == 3
    assert gained("model_selections_total", model="fast", provider="scripted") >= 3
    assert gained("provider_attempts_total", outcome="ok") >= 3
    assert gained("deliberation_rounds_count", workflow_type="challenge") == 2
    assert gained("cost_usd_total", model="fast") > 0
    assert has(now, "active_workflows", workflow_type="challenge")
    assert total(now, "active_workflows", workflow_type="challenge") == 0
    assert any(name.startswith("ray_serve_") for name, _ in now)


async def test_an_unchanged_gauge_stays_on_the_page(cluster: RunningCluster, runner: Any) -> None:
    await collect(runner, order("challenge", target="85"))

    def shown(page: Samples) -> bool:
        return has(page, "active_workflows", workflow_type="challenge")

    await until(lambda: shown(samples_of(cluster)), 30, every_s=0.5)
    seen_at = time.monotonic()

    def held() -> bool:
        page = samples_of(cluster)
        gone = is_complete(page) and not shown(page)
        assert not gone, f"gone after {time.monotonic() - seen_at:.1f} s without a change"
        return is_complete(page) and time.monotonic() - seen_at > STALE_AFTER_S

    await until(held, 30, every_s=0.5)


def test_the_page_needs_the_key(cluster: RunningCluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.base_url}/metrics", timeout=10)
    assert refused.value.code == 401
