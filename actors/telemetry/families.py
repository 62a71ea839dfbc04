"""Every metric family of the runtime: the names that dashboards, alerts and tests rely on.

Labels have few values: flow, node, provider, model, outcome. Never a run, a user or a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
ROUNDS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: kind, help text, labels, buckets. ``merge``: how one page adds up processes' gauges."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS
    merge: Literal["sum", "max"] = "sum"


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("workflow_executions_total", "counter", "Ended runs", ("workflow_type", "status")),
        Family("workflow_duration_seconds", "histogram", "Duration of a run", ("workflow_type",)),
        Family("active_workflows", "gauge", "Runs under way", ("workflow_type",)),
        Family("run_status_total", "counter", "Times that a process saw a run enter a status", ("status",)),
        Family(
            "orchestration_duration_seconds",
            "histogram",
            "From the order's arrival at a runner to the committed result",
            ("workflow_type", "status"),
        ),
        Family("orchestration_errors_total", "counter", "Errors", ("type", "component")),
        Family("model_selections_total", "counter", "Models chosen for a call", ("model", "provider")),
        Family("step_executions_total", "counter", "Ended visits of nodes", ("tool", "status")),
        Family(
            "node_duration_seconds", "histogram", "Duration of a node's visit", ("workflow_type", "node_id")
        ),
        Family("deliberation_rounds", "histogram", "Rounds of a run", ("workflow_type",), ROUNDS),
        Family(
            "deliberation_improvements_total",
            "counter",
            "Runs by what deliberating did to the answer: better, equal, worse, unmeasured",
            ("workflow_type", "outcome"),
        ),
        Family(
            "provider_attempts_total",
            "counter",
            "Calls to providers",
            ("provider", "model", "outcome", "fault"),
        ),
        Family("provider_latency_seconds", "histogram", "Duration of a call", ("provider", "model")),
        Family("breaker_state", "gauge", "0 closed, 1 half-open, 2 open", ("breaker",), merge="max"),
        Family("breaker_transitions_total", "counter", "Changes of a breaker", ("breaker", "state")),
        Family("tokens_total", "counter", "Tokens, prompt or completion", ("model", "direction")),
        Family("cost_usd_total", "counter", "Money spent, in US dollars", ("provider", "model")),
        Family("queue_depth", "gauge", "Runs that a runner holds", ("component",)),
        Family("queued_runs", "gauge", "Accepted runs that no runner has yet, in the database", merge="max"),
        Family("lease_reclaims_total", "counter", "Runs taken over from a runner that died"),
        Family("queue_wait_seconds", "histogram", "From acceptance to start", ("workflow_type",)),
        Family("rejected_total", "counter", "Requests turned away", ("reason",)),
        Family("checkpoint_write_seconds", "histogram", "Commits to the store", ("operation",)),
        Family("expert_restarts_total", "counter", "Experts run again because their worker died"),
        Family("vram_gb", "gauge", "GPU memory in GB, used or free", ("gpu", "state"), merge="max"),
        Family("metrics_scrape_failed", "gauge", "1 for a node that could not be read now", ("node",)),
    )
}
