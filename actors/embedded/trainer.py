"""The trainer of an embedded model: batches of lessons, optimizer steps, validation, saving."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from actors.embedded.held_out import held_out_questions
from actors.embedded.lessons import SKILLS, Lesson, Skill, random_lesson
from actors.embedded.recipes import Recipe, llama_config
from actors.embedded.vocabulary import ASSISTANT, END, MAX_POSITIONS, USER, VERDICT_PIECES, build_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

_WARMUP_STEPS = 150
_GRADIENT_CLIP = 1.0
_AVERAGE_DECAY = 0.998
# One token of about six in a critique, and the one that takes longest to be learnt.
_VERDICT_WEIGHT = 4.0
_VALIDATION_LESSONS = 256
# Apart from the seed of training, so that validation questions are the same in every run.
_VALIDATION_SEED = 77


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded lessons, all of shape (lessons, length).

    ``answers`` marks the tokens that are to be predicted, ``weights`` how much each counts in the loss.
    """

    tokens: torch.Tensor
    answers: torch.Tensor
    weights: torch.Tensor


class Trainer:
    """One training run: the model in training, a running average of its weights, and its data stream."""

    def __init__(self, recipe: Recipe, seed: int, compiled: bool, start_from: Path | None = None) -> None:
        import torch
        from transformers import LlamaForCausalLM

        torch.manual_seed(seed)
        self.recipe = recipe
        self.tokenizer = build_tokenizer()
        self.held_out = frozenset(question.key for question in held_out_questions())
        self.rng = Random(seed)
        self.verdicts = torch.tensor([self._id(piece) for piece in VERDICT_PIECES])
        config = llama_config(
            recipe, len(self.tokenizer), self._id(END), self.tokenizer.pad_token_id, MAX_POSITIONS
        )
        build_model: Callable[..., Any] = LlamaForCausalLM
        self.model: LlamaForCausalLM = build_model(config)
        if start_from is not None:
            self._load(start_from)
        self.average: LlamaForCausalLM = copy.deepcopy(self.model)
        self.forward: Callable[..., Any] = (
            torch.compile(self.model.model, dynamic=True) if compiled else self.model.model
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.peak_learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        )

    def step(self, number: int, progress: float) -> float:
        """One optimizer step over one sub-batch per skill; returns the mean loss per answer token."""
        import torch

        batches = [self.batch(lessons) for lessons in self._lessons(self.recipe.lessons_at(progress))]
        answer_tokens = sum(int(batch.answers.sum()) for batch in batches)
        total_loss = 0.0
        for batch in batches:
            loss: Any = self._loss(batch, self.forward, self.model) / answer_tokens
            loss.backward()
            total_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.peak_learning_rate * learning_rate_share(number, progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average(number)
        return total_loss

    def batch(self, lessons: Sequence[Lesson]) -> Batch:
        """The lessons as the chat template renders them."""
        import torch

        texts = [f"{USER}{lesson.prompt}{ASSISTANT}{lesson.target}{END}" for lesson in lessons]
        encoded = self.tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right")
        tokens = torch.tensor(encoded["input_ids"])
        begun = (tokens == self._id(ASSISTANT)).cumsum(dim=1) > 0
        answers = begun.roll(1, dims=1) & (tokens != self.tokenizer.pad_token_id)
        answers[:, 0] = False
        weights = 1.0 + (_VERDICT_WEIGHT - 1.0) * torch.isin(tokens, self.verdicts).float()
        return Batch(tokens, answers, weights)

    def validate(self) -> dict[Skill, float]:
        """Share of fresh lessons that the averaged model answers exactly (teacher-forced), by skill."""
        import torch

        rng, scores = Random(_VALIDATION_SEED), {}
        for skill in SKILLS:
            lessons = [random_lesson(skill, rng, self.held_out) for _ in range(_VALIDATION_LESSONS)]
            batch = self.batch(lessons)
            with torch.no_grad():
                predicted = self.average(input_ids=batch.tokens).logits[:, :-1].argmax(dim=-1)
            right = (predicted == batch.tokens[:, 1:]) | ~batch.answers[:, 1:]
            scores[skill] = float(right.all(dim=1).float().mean())
        return scores

    def save(self, folder: Path) -> None:
        """The averaged weights in bfloat16 with tokenizer and configurations, in Hugging Face's layout."""
        import torch
        from transformers import GenerationConfig

        folder.mkdir(parents=True, exist_ok=True)
        model: Any = copy.deepcopy(self.average)
        model.to(torch.bfloat16)
        build_generation_config: Callable[..., Any] = GenerationConfig
        model.generation_config = build_generation_config(
            eos_token_id=self._id(END), pad_token_id=self.tokenizer.pad_token_id, do_sample=False
        )
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)  # a fresh one: this run has set padding in its own

    def _load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        self.model.load_state_dict(weights, strict=False)
        self.model.tie_weights()

    def _lessons(self, counts: Mapping[Skill, int]) -> list[list[Lesson]]:
        return [
            [random_lesson(skill, self.rng, self.held_out) for _ in range(count)]
            for skill, count in counts.items()
        ]

    def _loss(self, batch: Batch, forward: Callable[..., Any], model: LlamaForCausalLM) -> torch.Tensor:
        """Summed cross-entropy of the answer tokens alone."""
        import torch

        with _half_precision():
            hidden = forward(input_ids=batch.tokens, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][batch.answers[:, 1:]])
        targets = batch.tokens[:, 1:][batch.answers[:, 1:]]
        losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        return (losses * batch.weights[:, 1:][batch.answers[:, 1:]]).sum()

    def _update_average(self, number: int) -> None:
        import torch

        decay = min(_AVERAGE_DECAY, number / (number + 10))
        with torch.no_grad():
            for kept, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(current, 1 - decay)

    def _id(self, special: str) -> int:
        found: Any = self.tokenizer.convert_tokens_to_ids(special)
        return int(found)


def learning_rate_share(number: int, progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to zero at ``progress`` 1."""
    return min(1.0, (number + 1) / _WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _half_precision() -> AbstractContextManager[None]:
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16)
