"""synthesize: a model merges what the nodes before it said; missing experts are stated, never hidden."""

from __future__ import annotations

from collections.abc import Sequence

from flows.asking import ask
from flows.node_context import NodeContext, NodeOutcome
from flows.node_task import Source
from registries.contracts.errors import BudgetError, ParleyError, ProviderError


async def synthesize(context: NodeContext) -> NodeOutcome:
    """Merge the sources that answered; raises ProviderError when none did, BudgetError when none had time.

    ``data`` has ``experts`` and ``failed`` (ids); the signal ``degraded`` says that somebody is missing.
    """
    answered = [
        source for source in context.task.sources if source.status == "completed" and source.text.strip()
    ]
    failed = [source for source in context.task.sources if source not in answered]
    if not answered:
        raise _nothing_to_merge(context.task.node.id, failed)
    merged = await ask(context, panel_texts(answered, failed))
    signals = [*merged.signals, *(["degraded"] if failed else [])]
    return merged.outcome(
        signals=signals,
        experts=[source.id for source in answered],
        failed=[source.id for source in failed],
    )


def _nothing_to_merge(node: str, failed: Sequence[Source]) -> ParleyError:
    names = ", ".join(source.id for source in failed) or "none"
    message = f"node {node!r} has nothing to merge; experts without an answer: {names}"
    errors = [source.error for source in failed if source.error is not None]
    if errors and all(error.code == BudgetError.code for error in errors):
        # No provider is at fault, and the same request would run out of it again.
        return BudgetError(f"{message}; {errors[0].message}", errors[0].param)
    return ProviderError(message)


def panel_texts(answered: Sequence[Source], failed: Sequence[Source]) -> dict[str, str]:
    """The prompt inputs of this kind: answers in a row, answers under headings, and who is missing."""
    headed = (f"The expert for {_name(source)} says:\n{source.text.strip()}" for source in answered)
    missing = ", ".join(_name(source) for source in failed)
    return {
        "answers": " | ".join(source.text.strip() for source in answered),
        "labelled_answers": "\n\n".join(headed),
        "missing": f"No answer came from: {missing}. Say that this view is missing." if missing else "",
    }


def _name(source: Source) -> str:
    return (source.role or source.id).replace("_", " ")
