"""critique: a model looks for faults; its verdict is read off the text as signals."""

from __future__ import annotations

from flows.asking import ask
from flows.node_context import NodeContext, NodeOutcome


async def critique(context: NodeContext) -> NodeOutcome:
    """Ask the model. ``data.verdict`` is the signal that was raised, "unclear" for none or several."""
    answered = await ask(context)
    verdict = answered.signals[0] if len(answered.signals) == 1 else "unclear"
    return answered.outcome(verdict=verdict)
