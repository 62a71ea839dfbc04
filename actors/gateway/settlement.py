"""From counted tokens to usage and integer micro-dollars."""

from __future__ import annotations

import math
from collections.abc import Iterable

from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.generation import Usage
from registries.specs import CostProfile, ModelSpec

ASSUMED_PROMPT_USD_PER_MTOK = 10.0
ASSUMED_COMPLETION_USD_PER_MTOK = 30.0
"""Least price assumed where nobody knows it: a dear hosted model's, so that budgets err on the safe side."""
CHARS_PER_TOKEN = 4
"""Rule of thumb for English text under the usual tokenizers; used only where nobody counted."""


class Settlement:
    """Prices of one catalog.

    Policy for an unknown price: the dearest price known in the catalog (never less than the ASSUMED
    ones) is charged and the usage is flagged ``estimated``; it is never zero.
    """

    def __init__(self, models: Iterable[ModelSpec]) -> None:
        known = [m.cost_profile for m in models]
        self._assumed = (
            max([ASSUMED_PROMPT_USD_PER_MTOK, *(p.prompt_usd_per_mtok or 0.0 for p in known)]),
            max([ASSUMED_COMPLETION_USD_PER_MTOK, *(p.completion_usd_per_mtok or 0.0 for p in known)]),
        )

    def usage(self, spec: ModelSpec, answer: EngineResult) -> Usage:
        """Usage of a whole answer; the engine's own price, where it knows one, goes first."""
        cost, guessed = self._cost(spec.cost_profile, answer.prompt_tokens, answer.completion_tokens)
        if answer.cost_micro_usd is not None:
            cost, guessed = answer.cost_micro_usd, False
        return Usage(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost_micro_usd=cost,
            estimated=answer.estimated or guessed,
        )

    def cut_off(self, spec: ModelSpec, call: EngineCall, completion_tokens: int) -> Usage:
        """Usage of a stream that ended early: what was seen is counted, the prompt is estimated."""
        prompt_tokens = estimate_tokens(sum(len(m.content) for m in call.messages))
        cost, _ = self._cost(spec.cost_profile, prompt_tokens, completion_tokens)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_micro_usd=cost,
            estimated=True,
        )

    def _cost(self, profile: CostProfile, prompt_tokens: int, completion_tokens: int) -> tuple[int, bool]:
        """Micro-dollars (1 $ a million tokens is one a token), rounded up; whether the price is a guess."""
        prompt_price, completion_price = profile.prompt_usd_per_mtok, profile.completion_usd_per_mtok
        guessed = prompt_price is None or completion_price is None
        exact = prompt_tokens * (self._assumed[0] if prompt_price is None else prompt_price)
        exact += completion_tokens * (self._assumed[1] if completion_price is None else completion_price)
        # 1e-9 keeps float noise (0.1 * 30 = 3.0000000000000004) from adding a micro-dollar.
        return math.ceil(exact - 1e-9), guessed


def worst_case_usd(spec: ModelSpec, prompt_tokens: int, max_tokens: int) -> float | None:
    """US dollars when every allowed token is generated; None where the price is unknown."""
    profile = spec.cost_profile
    if profile.prompt_usd_per_mtok is None or profile.completion_usd_per_mtok is None:
        return None
    micro = prompt_tokens * profile.prompt_usd_per_mtok + max_tokens * profile.completion_usd_per_mtok
    return micro / 1_000_000


def estimate_tokens(chars: int) -> int:
    """Tokens of a text of so many characters, estimated."""
    return math.ceil(chars / CHARS_PER_TOKEN)
