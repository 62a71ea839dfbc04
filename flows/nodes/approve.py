"""approve: a human judges a text before the flow goes on."""

from __future__ import annotations

from langgraph.types import interrupt

from flows.node_context import NodeContext, NodeOutcome
from registries.contracts.errors import ValidationError
from registries.contracts.runs import Decision

APPROVED, EDITED, REJECTED = "approved", "edited", "rejected"
SHOWN = "show"
"""The parameter that names the variable to judge; without it, what the latest completed predecessor said."""


async def approve(context: NodeContext) -> NodeOutcome:
    """Wait for a decision; ``data`` has decision and comment, the text is what was approved, "" if rejected.

    The first time LangGraph's GraphInterrupt leaves from here and ends the run as waiting. With an answer the
    node runs again from its top, so nothing may be done before ``interrupt``.
    """
    text = _text(context)
    question = {
        "node": context.task.node.id,
        "text": text,
        "question": str(context.param("question", "")),
    }
    decision = Decision.model_validate(interrupt(question))
    signals = {"approve": [APPROVED], "edit": [APPROVED, EDITED], "reject": [REJECTED]}[decision.action]
    texts = {"approve": text, "edit": decision.text or "", "reject": ""}
    data = {"decision": decision.action, "comment": decision.comment, "signals": signals}
    return NodeOutcome(texts[decision.action], data)


def _text(context: NodeContext) -> str:
    task = context.task
    shown = context.param(SHOWN, None)
    if shown is not None:
        return task.variables[shown]
    completed = [source for source in task.sources if source.status == "completed"]
    if not completed:
        raise ValidationError(
            f"node {task.node.id!r} follows no node that has answered", f"nodes.{task.node.id}"
        )
    return max(completed, key=lambda source: source.at).text
