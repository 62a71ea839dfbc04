"""Trains an embedded model from scratch: ``python -m actors.embedded.train --model nano-s --out DIR``.

Seeded and without outside data: every batch is drawn from the lesson generator, never touching the
held-out operands. A run with the default step count reproduces the committed model's recipe.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from actors.embedded.recipes import RECIPES
from actors.embedded.trainer import Trainer

_REPORT_EVERY_STEPS = 200


def train(
    trainer: Trainer,
    folder: Path,
    minutes: float | None,
    report: Callable[[str], None],
    start_at: float = 0.0,
) -> None:
    """Runs the recipe's steps, or what fits into ``minutes``, and saves a usable model along the way.

    ``start_at`` is the share of the schedule (0 to 1) that the trainer's weights have behind them.
    """
    began, steps = time.monotonic(), trainer.recipe.steps
    limit_s = math.inf if minutes is None else minutes * 60
    number, progress = 0, start_at
    while progress < 1:
        loss = trainer.step(number, progress)
        number += 1
        elapsed_s = time.monotonic() - began
        progress = max(start_at + number / steps, start_at + (1 - start_at) * elapsed_s / limit_s)
        if number % _REPORT_EVERY_STEPS == 0 or progress >= 1:
            trainer.save(folder)
            scores = " ".join(f"{skill} {score:.3f}" for skill, score in trainer.validate().items())
            report(f"step {number} of {steps}, {elapsed_s:.0f} s, loss {loss:.4f}, validation: {scores}")


def main(arguments_given: Sequence[str] | None = None) -> None:
    """Train one of the embedded models."""
    # Threads that spin while they wait for each other double the time of a step on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--minutes", type=float, help="stop by then, with the schedule shortened to fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="folder of a model whose training is to be taken up")
    parser.add_argument(
        "--start-at", type=float, default=0.0, help="share of its schedule already done, 0 to 1"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="faster, but needs a C++ compiler")
    arguments = parser.parse_args(arguments_given)
    torch.set_num_threads(arguments.threads)
    trainer = Trainer(RECIPES[arguments.model], arguments.seed, arguments.compile, arguments.start_from)
    report = partial(print, file=sys.stderr, flush=True)
    train(trainer, arguments.out, arguments.minutes, report, arguments.start_at)


if __name__ == "__main__":
    main()
