"""summarise: says what happened, with its figures, from the facts of the run; no model is asked."""

from __future__ import annotations

from typing import Any

from flows.node_context import NodeContext, NodeOutcome


async def summarise(context: NodeContext) -> NodeOutcome:
    """``data`` gets final_summary and metrics (tokens, cost, models, seconds in models, nodes by status)."""
    task = context.task
    metrics = totals(task.facts.get("nodes", {}))
    score = task.facts.get("score")
    parts = [
        f"Task: {task.task_type or 'general'}.",
        f"Answer: {_shortened(task.variables.get('answer', '')) or 'none'}.",
        f"Score of the form: {score:.2f}." if isinstance(score, (int, float)) else "",
        f"Models: {', '.join(metrics['models']) or 'none'}; {metrics['total_tokens']} tokens, "
        f"{metrics['cost_usd']:.6f} US dollars.",
    ]
    summary = " ".join(part for part in parts if part)
    return NodeOutcome(summary, {"final_summary": summary, "metrics": metrics})


def totals(nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Sums over the nodes' figures (see flows.visit)."""
    figures = list(nodes.values())
    return {
        "visits": sum(figure["visits"] for figure in figures),
        "failed": sum(figure["failed"] for figure in figures),
        "prompt_tokens": sum(figure["prompt_tokens"] for figure in figures),
        "completion_tokens": sum(figure["completion_tokens"] for figure in figures),
        "total_tokens": sum(figure["prompt_tokens"] + figure["completion_tokens"] for figure in figures),
        "cost_usd": sum(figure["cost_micro_usd"] for figure in figures) / 1_000_000,
        "model_s": round(sum(figure["duration_s"] for figure in figures if figure["model"]), 6),
        "models": sorted({figure["model"] for figure in figures if figure["model"]}),
    }


def _shortened(text: str, limit: int = 200) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
