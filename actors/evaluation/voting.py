"""Plain voting: the baseline that a deliberation has to beat at the same number of tokens; pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

MAX_SAMPLES = 101


def majority(answers: Sequence[str]) -> int:
    """Index of the first answer that holds the majority's view; a tie goes to the view voiced first.

    An empty answer is an abstention: it wins only where everybody abstains. Raises ValueError of no answers.
    """
    if not answers:
        raise ValueError("a vote needs at least one answer")
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        return 0
    most = max(counts.values())
    return next(i for i, answer in enumerate(answers) if answer and counts[answer] == most)


def samples_for_tokens(flow_tokens: float, sample_tokens: float) -> int:
    """How many samples a flow's mean tokens buy, rounded up so that voting never has fewer than the flow.

    At least 1, at most MAX_SAMPLES. Raises ValueError unless both are positive.
    """
    if flow_tokens <= 0 or sample_tokens <= 0:
        raise ValueError(f"tokens must be positive: flow {flow_tokens}, sample {sample_tokens}")
    return max(1, min(MAX_SAMPLES, math.ceil(flow_tokens / sample_tokens)))
