"""A run and a model call as the API tells them."""

from __future__ import annotations

from typing import Any

GENERATION: dict[str, Any] = {
    "text": "48 + 37 = 85",
    "tokens_generated": 6,
    "timings": {"load_time": 0, "inference_time": 0.1, "total": 0.12},
    "usage": {"prompt_tokens": 7, "completion_tokens": 6, "cost_micro_usd": 12},
    "source": "local",
    "model_resolved": "nano-m",
    "request_id": "req-1",
}


def node(id: str, text: str = "", visit: int = 1, **more: Any) -> dict[str, Any]:
    """A NodeResult."""
    return {
        "id": id,
        "role": id,
        "visit": visit,
        "status": "completed",
        "text": text,
        "model_resolved": "nano-m",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "timings": {"started_s": 0, "duration_s": 0.25},
        **more,
    }


RUN: dict[str, Any] = {
    "run_id": "run-1",
    "flow": "challenge",
    "flow_version": "abc",
    "status": "completed",
    "answer": "85",
    "nodes": [node("creator", "75"), node("challenger", "I get 85. Wrong."), node("refiner", "85")],
    "usage": {"prompt_tokens": 30, "completion_tokens": 12, "cost_micro_usd": 1500},
    "timings": {"queued_s": 0, "total_s": 1.5},
    "improvement": {"first_score": 0.0, "final_score": 1.0, "delta": 1.0, "method": "checker"},
    "rounds": 1,
    "artifact": "/home/x/outputs/challenge_flows/run-1.json",
    "request_id": "req-2",
}


def event(type: str, node: str | None = None, seq: int = 1, attempt: int = 1, **data: Any) -> dict[str, Any]:
    """A RunEvent."""
    return {
        "run_id": "run-1",
        "seq": seq,
        "time": 1.0,
        "type": type,
        "node": node,
        "attempt": attempt,
        "data": data,
    }


def spoken(id: str, *pieces: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a node that says the pieces."""
    return [
        ("node.started", event("node.started", id, role=id, visit=1)),
        *(("node.token", event("node.token", id, text=piece, visit=1)) for piece in pieces),
        ("node.completed", event("node.completed", id, **node(id, "".join(pieces)))),
    ]


def numbered(events: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """With seqs as the runtime gives them: gapless from 1 for durable events, tokens carry the last one."""
    seq, found = 0, []
    for type_, data in events:
        seq += type_ != "node.token"
        found.append((type_, {**data, "seq": seq}))
    return found


def run_events() -> list[tuple[str, dict[str, Any]]]:
    """The whole stream of the run."""
    events = [
        ("run.queued", event("run.queued")),
        ("run.started", event("run.started")),
        *spoken("creator", "7", "5"),
        ("round.started", event("round.started", "challenger", round=1)),
        *spoken("challenger", "I get 85. ", "Wrong."),
        *spoken("refiner", "85"),
        ("run.completed", event("run.completed", result=RUN)),
    ]
    return numbered(events)
