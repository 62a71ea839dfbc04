"""analyze: what kind of task this is and what it needs, by rules alone; equal questions give equal tasks."""

from __future__ import annotations

import re
from typing import Any

from flows.node_context import NodeContext, NodeOutcome

_OPERATION = r"(?:[-+*/×÷^]|plus|minus|times|divided by)"

# First match wins, so the narrow ones come first.
TASK_RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (task_type, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for task_type, pattern in (
        (
            "arithmetic",
            r"^\W*+(?:what is|how much is|calculate|compute)?\s*+-?\d[\d.,]*+\s*+" + _OPERATION + r"\s*-?\d",
        ),
        (
            "code",
            r"```|\b(?:python|javascript|typescript|rust|java|sql|regex|bash|refactor|debug|stack trace)\b"
            r"|\b(?:def|class|function)\s+\w+\s*\(",
        ),
        ("translation", r"\btranslat(?:e|ion)\b"),
        ("summarisation", r"\b(?:summari[sz]e|summary|tl;?dr)\b"),
        ("classification", r"\b(?:classify|categori[sz]e|label)\b"),
        ("creative", r"\b(?:poem|story|slogan|haiku|lyrics|novel)\b"),
        (
            "analysis",
            r"\b(?:compare|analy[sz]e|evaluate|review|assess|design|trade-?offs?|pros and cons)\b",
        ),
    )
)
_REFERS_BACK = re.compile(
    r"\b(?:again|before|earlier|previous(?:ly)?|above|as (?:i|we|you) said|continue|that one)\b", re.I
)
LONG_QUESTION_WORDS = 50


async def analyze(context: NodeContext) -> NodeOutcome:
    """``data`` gets task_type and requirements; the text says them in words."""
    task_type = task_type_of(context.task.question)
    requirements = requirements_of(context.task.question)
    if context.task.conversation_id is None:
        requirements["history"] = False
    needs = (
        ", ".join(sorted(name for name, wanted in requirements.items() if wanted is True))
        or "nothing special"
    )
    text = f"Task type: {task_type}. Needs: {needs}."
    return NodeOutcome(text, {"task_type": task_type, "requirements": requirements})


def task_type_of(question: str) -> str:
    """The first rule that matches, else "general"."""
    return next((task_type for task_type, pattern in TASK_RULES if pattern.search(question)), "general")


def requirements_of(question: str) -> dict[str, Any]:
    """Words in the question, whether it is long, and whether it refers to earlier turns."""
    words = len(question.split())
    return {
        "words": words,
        "long_context": words > LONG_QUESTION_WORDS,
        "history": _REFERS_BACK.search(question) is not None,
    }
