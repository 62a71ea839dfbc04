"""The command line of an evaluation, checked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.evaluation.voting import MAX_SAMPLES
from registries.catalog import Catalog
from registries.contracts.errors import NotFound, ValidationError

MATCHED = "matched"
EPILOG = """\
example: ray job submit --working-dir . -- python -m actors.evaluation \\
           --dataset questions.jsonl --flow challenge --model nano-m --votes matched --out evaluation

Exit status: 0 every item was answered, 1 some failed or an arm was given up, 2 wrong input, 3 no runtime.
A second run with the same --out does only what is missing or failed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; see ``parser`` for the meaning of each."""

    dataset: Path
    out: Path
    flows: tuple[str, ...]
    models: tuple[str, ...]
    votes: tuple[int, ...]
    matched_votes: bool
    vote_temperature: float
    roles: dict[str, str]
    limit: int | None
    concurrency: int
    seed: int
    max_tokens: int | None
    deadline_s: float
    config: Path | None
    progress_every_s: float


def parser() -> argparse.ArgumentParser:
    """Every option with its meaning."""
    made = argparse.ArgumentParser(
        prog="python -m actors.evaluation",
        description="Run a data set through flows, models and plain votes on the running cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add(
        "--dataset",
        type=Path,
        required=True,
        help="JSON lines (id, input, target, metadata), or a data set of the package",
    )
    add(
        "--out", type=Path, required=True, help="folder of results.jsonl, summary.md, summary.json, plan.json"
    )
    add("--flow", action="append", default=[], help="flow(s) to run, by name; commas or several times")
    add("--model", action="append", default=[], help="model(s) to ask alone, by key")
    add(
        "--votes",
        action="append",
        default=[],
        help="votes of K samples of each --model: numbers, or 'matched' "
        "for as many samples as the flow's mean tokens buy",
    )
    add("--vote-temperature", type=float, default=0.7, help="temperature of the votes' samples (default 0.7)")
    add(
        "--role", action="append", default=[], metavar="ROLE=MODEL", help="the model of a role, in every flow"
    )
    add("--limit", type=int, help="only the first N samples")
    add("--concurrency", type=int, default=8, help="runs or model calls at a time (default 8)")
    add(
        "--seed",
        type=int,
        default=0,
        help="the same seed asks the same questions with the same seeds (default 0)",
    )
    add("--max-tokens", type=int, help="limit of each model call")
    add("--deadline", type=float, default=300.0, help="seconds for one item (default 300)")
    add("--config", type=Path, help="the runtime's configuration (default: found in PARLEY_HOME)")
    add("--progress-every", type=float, default=5.0, help="seconds between progress lines (default 5)")
    return made


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """The options; argparse exits with 2 for its own complaints, ValidationError names all others."""
    given = parser().parse_args(arguments)
    votes = _listed(given.votes)
    problems = _out_of_range(given)
    problems += [
        f"--votes {v}: a number from 1 to {MAX_SAMPLES}, or {MATCHED!r}" for v in votes if not _is_vote(v)
    ]
    problems += [f"--role {pair}: must be ROLE=MODEL" for pair in given.role if not all(pair.partition("="))]
    flows, models = _listed(given.flow), _listed(given.model)
    if not flows and not models:
        problems.append("--flow or --model: nothing to evaluate was named")
    if votes and not models:
        problems.append("--votes: needs --model, the model that votes")
    if MATCHED in votes and not flows:
        problems.append(f"--votes {MATCHED}: needs --flow, whose tokens are matched")
    if problems:
        raise ValidationError("\n".join(problems), param="arguments")
    return Options(
        dataset=given.dataset,
        out=given.out,
        flows=flows,
        models=models,
        votes=tuple(int(v) for v in votes if v != MATCHED),
        matched_votes=MATCHED in votes,
        vote_temperature=given.vote_temperature,
        roles=dict(pair.split("=", 1) for pair in given.role),
        limit=given.limit,
        concurrency=given.concurrency,
        seed=given.seed,
        max_tokens=given.max_tokens,
        deadline_s=given.deadline,
        config=given.config,
        progress_every_s=given.progress_every,
    )


def check_names(options: Options, catalog: Catalog) -> None:
    """Every flow and model must exist; raises ValidationError naming all that do not."""
    problems = []
    for flow in options.flows:
        problems += _missing(lambda flow=flow: catalog.flows.get(flow), "--flow")
    for model in (*options.models, *options.roles.values()):
        problems += _missing(lambda model=model: catalog.get_model(model), "--model")
    if problems:
        raise ValidationError("\n".join(problems), param="arguments")


def _missing(look_up: object, option: str) -> list[str]:
    try:
        look_up()  # type: ignore[operator]
    except NotFound as error:
        return [f"{option}: {error.message}"]
    return []


def _listed(values: Sequence[str]) -> tuple[str, ...]:
    """Commas and repetitions, in order, each name once."""
    names = [name.strip() for value in values for name in value.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _is_vote(value: str) -> bool:
    return value == MATCHED or (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_SAMPLES)


def _out_of_range(given: argparse.Namespace) -> list[str]:
    allowed = {
        "limit": (1, 10**9),
        "concurrency": (1, 1024),
        "seed": (0, 2**31 - 1),
        "max_tokens": (1, 131_072),
        "deadline": (0.001, 86_400),
        "vote_temperature": (0, 2),
        "progress_every": (0.01, 3600),
    }
    return [
        f"--{name.replace('_', '-')} {value}: must lie between {low} and {high}"
        for name, (low, high) in allowed.items()
        if (value := getattr(given, name)) is not None and not low <= value <= high
    ]
