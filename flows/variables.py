"""The texts that a prompt can name: the inputs, and every earlier output by its node's name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from flows.state import AgentState
from registries.specs import FlowSpec, NodeSpec

ALWAYS_THERE: frozenset[str] = frozenset(
    {"input", "answer", "previous_output", "history", "task_type", "round"}
)
"""``input`` is the question, ``answer`` the latest answer of the flow, ``previous_output`` the last text."""
RESERVED_VARIABLES = ALWAYS_THERE - {"input"}


def output_variable(node_id: str) -> str:
    """``creator`` becomes ``creator_output``."""
    return f"{node_id}_output"


def score_variable(node_id: str) -> str:
    """``validator`` becomes ``validator_score``."""
    return f"{node_id}_score"


def comment_variable(node_id: str) -> str:
    """``approver`` becomes ``approver_comment``."""
    return f"{node_id}_comment"


def input_names(flow: FlowSpec) -> list[str]:
    """Names of the declared inputs, without the mark of optional ones."""
    return [name.removesuffix("?") for name in flow.input]


def variables_for(state: AgentState, flow: FlowSpec, node: NodeSpec, visit: int) -> dict[str, str]:
    """All variables of one visit; a node that has not answered yet has an empty output."""
    memory = state["memory"]
    comments = {result["id"]: result["data"].get("comment") or "" for result in state["results"]}
    return {
        **{name: _text(state["input"].get(name)) for name in input_names(flow)},
        **{name: value for name, value in node.params.items() if isinstance(value, str)},
        **{output_variable(other.id): state["outputs"].get(other.id, "") for other in flow.nodes},
        **{score_variable(other.id): _score(state["scores"].get(other.id)) for other in flow.nodes},
        **{comment_variable(other.id): comments.get(other.id, "") for other in flow.nodes},
        "input": question_of(state),
        "answer": answer_of(state["outputs"], flow),
        "previous_output": _previous_output(state["results"]),
        "history": "\n".join(f"{turn['role']}: {turn['content']}" for turn in memory.get("history", ())),
        "task_type": str(memory.get("task_type") or "general"),
        "round": str(visit),
    }


def question_of(state: AgentState) -> str:
    """The question: the prompt, else the whole input as JSON."""
    prompt = state["input"].get("prompt")
    return prompt if isinstance(prompt, str) and prompt.strip() else _text(state["input"])


def answer_of(outputs: dict[str, str], flow: FlowSpec) -> str:
    """The first of the flow's answer nodes that has answered."""
    return next((outputs[name] for name in flow.output.answer if outputs.get(name, "").strip()), "")


def _previous_output(results: Iterable[dict[str, Any]]) -> str:
    texts = [result["text"] for result in results if result["status"] == "completed" and result["text"]]
    return texts[-1] if texts else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
