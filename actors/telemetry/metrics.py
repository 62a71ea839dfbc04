"""What is measured, in the runtime's own words, over whichever sink the process has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actors.gpu import GpuMemory
from actors.telemetry.sinks import MetricSink
from registries.contracts.generation import Attempt, Usage
from registries.contracts.runs import NodeResult, RunResult

BREAKER_LEVEL = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


class Metrics:
    """One a process. Every method is cheap, synchronous and safe to call from the event loop."""

    def __init__(self, sink: MetricSink, component: str) -> None:
        self._sink = sink
        self._component = component
        self._active: Counter[str] = Counter()

    def record_run_queued(self) -> None:
        """A run was accepted."""
        self._sink.record("run_status_total", 1, {"status": "queued"})

    def record_run_started(self, flow: str, queued_s: float) -> None:
        """A runner began a run that had waited ``queued_s`` seconds."""
        self._sink.record("run_status_total", 1, {"status": "running"})
        self._sink.record("queue_wait_seconds", max(0.0, queued_s), {"workflow_type": flow})
        self._active[flow] += 1
        self._sink.record("active_workflows", self._active[flow], {"workflow_type": flow})

    def record_run_ended(self, result: RunResult, held_s: float) -> None:
        """A run that was started ended; ``held_s`` is from the order's arrival to the committed result."""
        flow = result.flow
        self._active[flow] = max(0, self._active[flow] - 1)
        labels = {"workflow_type": flow, "status": result.status}
        self._sink.record("active_workflows", self._active[flow], {"workflow_type": flow})
        self._sink.record("workflow_executions_total", 1, labels)
        self._sink.record("workflow_duration_seconds", result.timings.total_s, {"workflow_type": flow})
        self._sink.record("run_status_total", 1, {"status": result.status})
        self._sink.record("orchestration_duration_seconds", held_s, labels)
        if result.rounds:
            self._sink.record("deliberation_rounds", result.rounds, {"workflow_type": flow})
        outcome = _direction(result.improvement.delta)
        self._sink.record("deliberation_improvements_total", 1, {"workflow_type": flow, "outcome": outcome})
        if result.error is not None:
            self.record_error(result.error.code)

    def record_unheld_end(self, result: RunResult) -> None:
        """A run that no runner held was ended: too late in the queue, parked, refused, or cancelled there."""
        labels = {"workflow_type": result.flow, "status": result.status}
        self._sink.record("workflow_executions_total", 1, labels)
        self._sink.record("run_status_total", 1, {"status": result.status})
        if result.error is not None:
            self.record_error(result.error.code)

    def record_run_left(self, flow: str) -> None:
        """A run that was started goes on elsewhere, or later: handed over, taken over, or waiting."""
        self._active[flow] = max(0, self._active[flow] - 1)
        self._sink.record("active_workflows", self._active[flow], {"workflow_type": flow})

    def record_run_waits(self, flow: str) -> None:
        """A run that was started waits for a human."""
        self.record_run_left(flow)
        self._sink.record("run_status_total", 1, {"status": "waiting"})

    def record_lease_reclaimed(self) -> None:
        """A run was taken over from a runner that died."""
        self._sink.record("lease_reclaims_total", 1, {})

    def record_node(self, flow: str, node: NodeResult) -> None:
        """One visit of one node ended."""
        self._sink.record("step_executions_total", 1, {"tool": node.kind or node.role, "status": node.status})
        if node.status != "skipped":
            labels = {"workflow_type": flow, "node_id": node.id}
            self._sink.record("node_duration_seconds", node.timings.duration_s, labels)

    def record_error(self, code: str) -> None:
        """An error of the tree reached a caller from this component."""
        self._sink.record("orchestration_errors_total", 1, {"type": code, "component": self._component})

    def record_rejected(self, reason: str) -> None:
        """A request was turned away: queue_full, draining …"""
        self._sink.record("rejected_total", 1, {"reason": reason})

    def record_queue_depth(self, depth: int) -> None:
        """Runs that this process holds."""
        self._sink.record("queue_depth", depth, {"component": self._component})

    def record_queued_runs(self, count: int) -> None:
        """Runs in the database that wait for a runner."""
        self._sink.record("queued_runs", count, {})

    def record_vram(self, devices: Iterable[GpuMemory]) -> None:
        """What NVML just said of this machine's GPUs."""
        for device in devices:
            for state, size_gb in (("used", device.used_gb), ("free", device.free_gb)):
                self._sink.record("vram_gb", size_gb, {"gpu": str(device.index), "state": state})

    def record_commit(self, operation: str, seconds: float) -> None:
        """A commit to the store took this long."""
        self._sink.record("checkpoint_write_seconds", seconds, {"operation": operation})

    def record_expert_restart(self) -> None:
        """An expert's worker died and the expert was run again."""
        self._sink.record("expert_restarts_total", 1, {})

    def record_selection(self, model: str, provider: str) -> None:
        """A model was chosen for a call."""
        self._sink.record("model_selections_total", 1, {"model": model, "provider": provider})

    def record_attempt(self, attempt: Attempt, usage: Usage | None) -> None:
        """One try at one provider ended."""
        where = {"provider": attempt.provider, "model": attempt.model}
        fault = {"outcome": attempt.outcome, "fault": attempt.fault or "none"}
        self._sink.record("provider_attempts_total", 1, {**where, **fault})
        if attempt.outcome == "ok":
            self._sink.record("provider_latency_seconds", attempt.latency_s, where)
        if usage is not None:
            for direction, tokens in (
                ("prompt", usage.prompt_tokens),
                ("completion", usage.completion_tokens),
            ):
                self._sink.record("tokens_total", tokens, {"model": attempt.model, "direction": direction})
            self._sink.record("cost_usd_total", usage.cost, where)

    def record_breaker(self, key: str, state: str) -> None:
        """A breaker changed its state."""
        self._sink.record("breaker_state", BREAKER_LEVEL.get(state, 0.0), {"breaker": key})
        self._sink.record("breaker_transitions_total", 1, {"breaker": key, "state": state})


def _direction(delta: float | None) -> str:
    if delta is None:
        return "unmeasured"
    if delta == 0:
        return "equal"
    return "better" if delta > 0 else "worse"
