"""validate: scores the form of an answer without a model; below the bar the loop around it tries again."""

from __future__ import annotations

import random
import re

from flows.node_context import NodeContext, NodeOutcome
from registries.contracts.errors import ValidationError

DEFAULT_BAR = 0.6
_JITTER = 0.1
# Shares of the score that are lost; an answer that is empty has none.
_TRUNCATED, _ECHO, _NO_NUMBER, _REPETITIVE, _REFUSED = 0.4, 0.6, 0.8, 0.5, 0.5
_REFUSAL = re.compile(r"^\W*+(?:i['’]?m sorry|i cannot|i can['’]?t|as an ai)\b", re.IGNORECASE)


async def validate(context: NodeContext) -> NodeOutcome:
    """Signal ``accepted`` at ``params.bar`` and above. Below it the node waits as its retry policy says.

    ``data`` has score, bar and reasons. The truth of the answer is not judged here.
    """
    if not context.task.sources:
        raise ValidationError(
            f"node {context.task.node.id!r} follows no node", f"nodes.{context.task.node.id}"
        )
    source = context.task.sources[-1]
    bar = float(context.param("bar", DEFAULT_BAR))
    score, reasons = score_form(
        context.task.question,
        source.text,
        context.task.task_type,
        source.data.get("finish_reason") == "length",
    )
    accepted = score >= bar
    if not accepted:
        await _back_off(context)
    text = f"Score {score:.2f} (bar {bar:.2f}): {'; '.join(reasons) or 'nothing to object to'}."
    data = {"score": score, "bar": bar, "reasons": reasons, "signals": ["accepted"] if accepted else []}
    return NodeOutcome(text, data)


def score_form(question: str, answer: str, task_type: str | None, truncated: bool) -> tuple[float, list[str]]:
    """A score in [0, 1] and the reasons for what it lacks."""
    words = answer.split()
    if not words:
        return 0.0, ["the answer is empty"]
    losses = [
        (_TRUNCATED, truncated, "the answer was cut off at its token limit"),
        (_ECHO, answer.strip().casefold() == question.strip().casefold(), "the answer repeats the question"),
        (_NO_NUMBER, task_type == "arithmetic" and not re.search(r"\d", answer), "the answer has no number"),
        (_REPETITIVE, len(words) >= 12 and len(set(words)) * 4 < len(words), "the answer repeats itself"),
        (_REFUSED, _REFUSAL.match(answer) is not None, "the answer refuses"),
    ]
    lost = [(share, reason) for share, applies, reason in losses if applies]
    return max(0.0, 1.0 - sum(share for share, _ in lost)), [reason for _, reason in lost]


async def _back_off(context: NodeContext) -> None:
    retry, visit = context.task.node.retry, context.task.visit
    if retry is None or visit > retry.max_retries:
        return
    pause_s = min(retry.backoff_factor**visit, retry.max_backoff_s)
    jitter = random.Random(context.task.call_id).random() * _JITTER
    await context.ports.clock.sleep(min(pause_s * (1 + jitter), context.remaining_s()))
