"""The architecture and training figures of each embedded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.embedded.lessons import Skill

if TYPE_CHECKING:
    from transformers import LlamaConfig

# The smallest head that vLLM's CPU attention backend supports.
HEAD_DIM = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape, schedule and diet of one model; ``lessons_per_step`` is its batch, by skill."""

    hidden_size: int
    layers: int
    intermediate_size: int
    steps: int
    peak_learning_rate: float
    lessons_per_step: Mapping[Skill, int]

    def lessons_at(self, progress: float) -> Mapping[Skill, int]:
        """The batch at ``progress`` (0 to 1): short lessons first, for a start in arithmetic."""
        return _FIRST_LESSONS if progress < _FIRST_LESSONS_UNTIL else self.lessons_per_step


_FIRST_LESSONS: Mapping[Skill, int] = {"solve": 80, "criticise": 48}
_FIRST_LESSONS_UNTIL = 0.35

RECIPES: Mapping[str, Recipe] = {
    "nano-m": Recipe(
        hidden_size=128,
        layers=4,
        intermediate_size=448,
        steps=14_000,
        peak_learning_rate=2e-3,
        lessons_per_step={"solve": 48, "criticise": 64, "repair": 24, "merge": 8},
    ),
    "nano-s": Recipe(
        hidden_size=64,
        layers=2,
        intermediate_size=160,
        steps=6_000,
        peak_learning_rate=3e-3,
        lessons_per_step={"solve": 48, "criticise": 64, "repair": 24, "merge": 8},
    ),
}


def llama_config(
    recipe: Recipe, vocabulary_size: int, end_id: int, pad_id: int, positions: int
) -> LlamaConfig:
    """The recipe's shape as a Llama configuration with tied embeddings."""
    from transformers import LlamaConfig

    heads = recipe.hidden_size // HEAD_DIM
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=positions,
        initializer_range=0.04,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=pad_id,
    )
