from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from actors.telemetry.exposition import merged_page

NODE = """# HELP ray_workflow_executions_total Ended runs
# TYPE ray_workflow_executions_total counter
ray_workflow_executions_total{workflow_type="challenge",status="completed",WorkerId="a"} 3.0
ray_workflow_executions_total{workflow_type="challenge",status="completed",WorkerId="b"} 4.0
# TYPE ray_breaker_state gauge
ray_breaker_state{breaker="openai",otel_scope_name="x",WorkerId="a"} 2.0
ray_breaker_state{breaker="openai",WorkerId="b"} 0.0
# TYPE ray_workflow_duration_seconds histogram
ray_workflow_duration_seconds_bucket{workflow_type="c",le="0.5"} 1.0
ray_workflow_duration_seconds_bucket{workflow_type="c",le="10.0"} 2.0
ray_workflow_duration_seconds_bucket{workflow_type="c",le="+Inf"} 2.0
ray_workflow_duration_seconds_sum{workflow_type="c"} 4.25
ray_workflow_duration_seconds_count{workflow_type="c"} 2.0
# TYPE ray_serve_replica_processing_queries gauge
ray_serve_replica_processing_queries{deployment="FlowRunner"} 1.0
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{ip="x"} 3.0
not a sample
"""


def parsed(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_processes_are_added_and_nodes_keep_apart() -> None:
    page = merged_page({"n1": NODE, "n2": NODE}, failed=["n3"])
    samples = parsed(page)
    runs = {dict(k[1])["node"]: v for k, v in samples.items() if k[0] == "workflow_executions_total"}
    assert runs == {"n1": 7.0, "n2": 7.0}
    assert samples["breaker_state", (("breaker", "openai"), ("node", "n1"))] == 2.0
    assert samples["workflow_duration_seconds_sum", (("node", "n1"), ("workflow_type", "c"))] == 4.25
    bounds = [
        line.split('le="')[1].split('"')[0]
        for line in page.splitlines()
        if "_bucket{" in line and 'n1"' in line
    ]
    assert bounds == ["0.5", "10.0", "+Inf"]
    assert "ray_serve_replica_processing_queries" in page
    assert "node_cpu_utilization" not in page
    failed = {dict(k[1])["node"]: v for k, v in samples.items() if k[0] == "metrics_scrape_failed"}
    assert failed == {"n1": 0.0, "n2": 0.0, "n3": 1.0}


def test_types_and_help_are_ours() -> None:
    page = merged_page({"n1": NODE})
    assert "# TYPE workflow_executions_total counter" in page
    assert "# HELP breaker_state 0 closed, 1 half-open, 2 open" in page


def test_an_empty_cluster_is_an_empty_page() -> None:
    assert merged_page({}) == "\n"
