from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.running.observed_events import ObservedEvents
from actors.telemetry.metrics import Metrics
from actors.telemetry.sinks import PrometheusSink
from registries.contracts.generation import Usage
from registries.contracts.runs import ErrorFact, NodeResult


class Passed:
    def __init__(self) -> None:
        self.types: list[str] = []

    async def emit(self, type: str, node: str | None, data: Mapping[str, Any], attempt: int = 1) -> None:
        self.types.append(type)


def observed() -> tuple[ObservedEvents, Passed, PrometheusSink]:
    inner, sink = Passed(), PrometheusSink()
    return ObservedEvents(inner, Metrics(sink, "test"), "challenge", "run-1", None), inner, sink


async def test_everything_is_passed_on_and_ended_visits_are_kept() -> None:
    events, inner, sink = observed()
    done = NodeResult(id="a", role="a", kind="generate", status="completed", usage=Usage(prompt_tokens=3))
    error = ErrorFact(code="x", message="y")
    failed = done.model_copy(update={"id": "b", "status": "failed", "error": error})
    await events.emit("round.started", "a", {"round": 1})
    await events.emit("node.started", "a", {"visit": 1})
    await events.emit("node.token", "a", {"text": "hi"})
    await events.emit("node.completed", "a", done.model_dump(mode="json"))
    await events.emit("node.failed", "b", failed.model_dump(mode="json"))
    await events.emit("node.started", "c", {})
    events.close()
    assert inner.types == [
        "round.started", "node.started", "node.token", "node.completed", "node.failed", "node.started",
    ]  # fmt: skip
    assert events.results == [done, failed]
    assert 'step_executions_total{status="failed",tool="generate"} 1.0' in sink.page()


async def test_an_event_of_another_shape_is_only_passed_on() -> None:
    events, inner, _ = observed()
    await events.emit("node.completed", "a", {"unknown": 1})
    assert inner.types == ["node.completed"] and events.results == []
