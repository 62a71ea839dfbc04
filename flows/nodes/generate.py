"""generate: a model answers the node's prompt."""

from __future__ import annotations

from flows.asking import ask
from flows.node_context import NodeContext, NodeOutcome


async def generate(context: NodeContext) -> NodeOutcome:
    """Ask the model; ``params.retry_temperature`` applies from the second visit on, lest it repeat itself."""
    temperature = context.param("retry_temperature", None) if context.task.visit > 1 else None
    answered = await ask(context, temperature=temperature)
    return answered.outcome()
