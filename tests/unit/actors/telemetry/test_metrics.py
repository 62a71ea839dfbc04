from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.gpu import GpuMemory
from actors.telemetry.exposition import NODE_LABEL
from actors.telemetry.families import FAMILIES
from actors.telemetry.gateway_telemetry import GatewayTelemetry
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import NullSink, PrometheusSink
from registries.contracts.generation import Attempt, Usage
from registries.contracts.runs import ErrorFact, Improvement, NodeResult, RunResult, RunTimings


def value(page: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and all(sample.labels.get(k) == v for k, v in labels.items()):
                return sample.value
    raise AssertionError(f"{name}{labels} is not on the page\n{page}")


def run(status: str = "completed", delta: float | None = None, **changes: object) -> RunResult:
    return RunResult(
        run_id="r",
        flow="challenge",
        flow_version="v",
        status=status,
        rounds=2,
        timings=RunTimings(total_s=1.5),
        improvement=Improvement(delta=delta),
        **changes,
    )


def test_a_run_from_start_to_end() -> None:
    sink = PrometheusSink()
    metrics = Metrics(sink, "flow_runner")
    metrics.record_run_queued()
    metrics.record_run_started("challenge", 0.2)
    metrics.record_run_started("challenge", 0.1)
    assert value(sink.page(), "active_workflows", workflow_type="challenge") == 2
    metrics.record_run_ended(run(delta=0.5), 2.0)
    failed = run("failed", error=ErrorFact(code="budget_exceeded", message="late"))
    metrics.record_run_ended(failed, 2.0)
    page = sink.page()
    assert value(page, "active_workflows", workflow_type="challenge") == 0
    assert value(page, "workflow_executions_total", workflow_type="challenge", status="completed") == 1
    assert value(page, "workflow_duration_seconds_sum", workflow_type="challenge") == 3.0
    assert value(page, "run_status_total", status="queued") == 1
    assert value(page, "run_status_total", status="running") == 2
    assert value(page, "orchestration_duration_seconds_count", status="failed") == 1
    assert value(page, "orchestration_errors_total", type="budget_exceeded", component="flow_runner") == 1
    assert value(page, "deliberation_improvements_total", outcome="better") == 1
    assert value(page, "deliberation_improvements_total", outcome="unmeasured") == 1


def test_a_run_that_waits_is_not_under_way() -> None:
    sink = PrometheusSink()
    metrics = Metrics(sink, "flow_runner")
    metrics.record_run_started("challenge", 0.2)
    metrics.record_run_waits("challenge")
    assert value(sink.page(), "active_workflows", workflow_type="challenge") == 0
    assert value(sink.page(), "run_status_total", status="waiting") == 1


@pytest.mark.parametrize(("delta", "outcome"), [(0.0, "equal"), (-1.0, "worse")])
def test_what_deliberating_did(delta: float, outcome: str) -> None:
    sink = PrometheusSink()
    Metrics(sink, "x").record_run_ended(run(delta=delta), 1)
    assert value(sink.page(), "deliberation_improvements_total", outcome=outcome) == 1


def test_the_gateway_s_facts() -> None:
    sink = PrometheusSink()
    telemetry = GatewayTelemetry(Metrics(sink, "x"))
    usage = Usage(prompt_tokens=10, completion_tokens=5, cost_micro_usd=2_000_000)
    telemetry.on_selection("m", "openai", "optimized", "r")
    telemetry.on_attempt(Attempt(model="m", provider="openai", outcome="ok", latency_s=0.3), usage, "r")
    telemetry.on_attempt(Attempt(model="m", provider="openai", outcome="error", fault="timeout"), None, "r")
    telemetry.on_breaker("openai", "closed", "open", 3, "timeout")
    page = sink.page()
    assert value(page, "model_selections_total", model="m", provider="openai") == 1
    assert value(page, "provider_attempts_total", outcome="error", fault="timeout") == 1
    assert value(page, "tokens_total", direction="completion") == 5
    assert value(page, "cost_usd_total", provider="openai") == 2.0
    assert value(page, "breaker_state", breaker="openai") == 2.0
    assert value(page, "breaker_transitions_total", state="open") == 1


def test_nodes_commits_and_queues() -> None:
    sink = PrometheusSink()
    metrics = Metrics(sink, "flow_runner")
    metrics.record_node("f", NodeResult(id="a", role="a", kind="generate", status="completed"))
    metrics.record_node("f", NodeResult(id="b", role="b", kind="monitor", status="skipped"))
    metrics.record_commit("events", 0.002)
    metrics.record_queue_depth(7)
    metrics.record_rejected("runner_full")
    metrics.record_expert_restart()
    page = sink.page()
    assert value(page, "step_executions_total", tool="monitor", status="skipped") == 1
    assert value(page, "node_duration_seconds_count", node_id="a") == 1
    assert value(page, "queue_depth", component="flow_runner") == 7
    assert value(page, "rejected_total", reason="runner_full") == 1
    assert value(page, "expert_restarts_total") == 1


def test_gpu_memory_is_shown_only_where_there_is_a_gpu() -> None:
    sink = PrometheusSink()
    metrics = Metrics(sink, "model_replica")
    metrics.record_vram(())
    assert "vram_gb" not in sink.page()
    metrics.record_vram([GpuMemory(1, "card", total_gb=24.0, used_gb=6.0, free_gb=18.0)])
    assert value(sink.page(), "vram_gb", gpu="1", state="used") == 6
    assert value(sink.page(), "vram_gb", gpu="1", state="free") == 18


def test_an_unknown_family_is_a_mistake_everywhere() -> None:
    for sink in (NullSink(), PrometheusSink()):
        with pytest.raises(KeyError):
            sink.record("no_such_family", 1, {})


def test_families_follow_the_naming_rules() -> None:
    for family in FAMILIES.values():
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not {"run", "user", "prompt", "request_id"} & set(family.labels)
        assert NODE_LABEL not in family.labels or family.name == "metrics_scrape_failed"
        assert family.help and all(b > 0 for b in family.buckets)
