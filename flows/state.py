"""The state of a run as LangGraph carries it: JSON values only, so that any store can keep it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

STATE_VERSION = 1

MEMORY_KEYS: tuple[str, ...] = ("task_type", "requirements", "available_vram_gb", "history")
"""What a node puts into its result's data under these names is remembered for every later node."""


class ErrorContext(TypedDict):
    """One failure of one node. ``stack_trace`` is for logs and operators and is never shown to a user."""

    timestamp: float
    error_type: str
    error_message: str
    node_name: str
    retry_count: int
    stack_trace: str


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Reducer: the later value of each key wins, keys of parallel nodes come together."""
    return {**old, **new}


def latest(old: Any, new: Any) -> Any:
    """Reducer: what was written last; several nodes may write in one step."""
    return old if new is None else new


class AgentState(TypedDict):
    """Channels of a run.

    ``outputs`` holds the latest good text by node id, ``signals`` the signals of the latest visit,
    ``results`` one NodeResult (as JSON) for each visit in order.
    """

    version: int
    request_id: str
    run_id: str
    input: dict[str, Any]
    messages: Annotated[list[dict[str, str]], operator.add]
    outputs: Annotated[dict[str, str], merged]
    scores: Annotated[dict[str, float], merged]
    signals: Annotated[dict[str, list[str]], merged]
    results: Annotated[list[dict[str, Any]], operator.add]
    error_history: Annotated[list[ErrorContext], operator.add]
    recovery_strategy: Annotated[str | None, latest]
    metrics: Annotated[dict[str, Any], merged]
    memory: Annotated[dict[str, Any], merged]


def new_state(run_id: str, request_id: str, values: Mapping[str, Any]) -> AgentState:
    """The state before the first node."""
    return AgentState(
        version=STATE_VERSION,
        request_id=request_id,
        run_id=run_id,
        input=dict(values),
        messages=[],
        outputs={},
        scores={},
        signals={},
        results=[],
        error_history=[],
        recovery_strategy=None,
        metrics={},
        memory={},
    )


def visits_of(state: AgentState, node_id: str) -> int:
    """How often the node has run so far, failures included."""
    return sum(1 for result in state["results"] if result["id"] == node_id)
