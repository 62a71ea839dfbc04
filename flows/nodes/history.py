"""history: reads earlier turns of the conversation and keeps those that bear on the question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flows.node_context import NodeContext, NodeOutcome
from registries.contracts.generation import Message

DEFAULT_LIMIT = 20
_SHORT_WORD = 4


async def history(context: NodeContext) -> NodeOutcome:
    """Signal ``relevant`` and ``data.history`` (role, content) where something bears; else it is skipped."""
    conversation = context.task.conversation_id
    if conversation is None:
        return NodeOutcome(data={"reason": "the request names no conversation"}, skipped=True)
    turns = await context.ports.history.read(conversation, int(context.param("limit", DEFAULT_LIMIT)))
    chosen = relevant_turns(context.task.question, turns)
    if not chosen:
        return NodeOutcome(
            data={"reason": "no earlier turn bears on the question", "read": len(turns)}, skipped=True
        )
    text = "\n".join(f"{turn.role}: {turn.content}" for turn in chosen)
    data = {
        "read": len(turns),
        "history": [turn.model_dump(mode="json") for turn in chosen],
        "context_chars": len(text),
        "signals": ["relevant"],
    }
    return NodeOutcome(text, data)


def relevant_turns(question: str, turns: Sequence[Message]) -> list[Message]:
    """Turns that share a number or a longer word with the question, in their order."""
    wanted = _terms(question)
    return [turn for turn in turns if wanted & _terms(turn.content)]


def _terms(text: str) -> set[str]:
    words = re.findall(r"\w+", text.casefold())
    return {word for word in words if len(word) >= _SHORT_WORD or word.isdigit()}
