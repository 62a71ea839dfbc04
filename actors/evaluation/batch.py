"""One evaluation from its options to its summary."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from actors.evaluation.arms import Arm, ArmSettings, FlowArm, FlowRun, Generate, VoteArm
from actors.evaluation.command_line import Options, check_names
from actors.evaluation.dataset import Sample, digest_of_samples, find_dataset, load_dataset
from actors.evaluation.evaluation import Evaluation
from actors.evaluation.patience import Patience
from actors.evaluation.plan import Plan, read_plan, write_atomically
from actors.evaluation.records import ResultLog
from actors.evaluation.report import render
from actors.evaluation.summary import summarise, summarise_arm
from actors.evaluation.voting import samples_for_tokens
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ProviderError

Say = Callable[[str], None]


class Runtime(Protocol):
    """What a batch needs of a runtime; actors.evaluation.live_runtime has the real one."""

    @property
    def catalog(self) -> Catalog:
        """Its registries."""
        ...

    @property
    def run(self) -> FlowRun:
        """A run by its FlowRunner."""
        ...

    @property
    def generate(self) -> Generate:
        """A model call by its gateway."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked input: what can be wrong is wrong before a cluster is asked for anything."""

    options: Options
    samples: Sequence[Sample]
    out: Path


def prepare(options: Options, config: RuntimeConfig, catalog: Catalog, here: Path) -> Prepared:
    """Read and check everything (blocking); raises ValidationError naming all that is wrong."""
    check_names(options, catalog)
    samples = load_dataset(find_dataset(options.dataset, here), options.limit)
    return Prepared(options, samples, output_folder(options.out, here, Path(config.home)))


async def evaluate(prepared: Prepared, runtime: Runtime, say: Say) -> int:
    """Run everything that is missing and write the summary; how many items failed in this run.

    Raises whatever ended the evaluation early: the summary of what there is by then is written all the same.
    """
    say(f"evaluation: {len(prepared.samples)} samples, results in {prepared.out}")
    batch = Batch(prepared, runtime, say)
    with ResultLog(prepared.out / "results.jsonl") as log:
        return await batch.run(log)


def output_folder(out: Path, here: Path, home: Path) -> Path:
    """Where results go: ``out``, unless it is relative and ``here`` is a job's copy of a working directory.

    Ray deletes such a copy with the job; the results then go to ``evaluations`` in PARLEY_HOME.
    """
    in_copy = "working_dir_files" in here.parts
    return (home / "evaluations" if in_copy else here) / out


class Batch:
    """The arms of one evaluation, in order: flows, models, votes of K, then the matched votes."""

    def __init__(self, prepared: Prepared, runtime: Runtime, say: Say) -> None:
        options = prepared.options
        self._options = options
        self._runtime = runtime
        self._samples = prepared.samples
        self._out = prepared.out
        self._say = say
        self._patience = Patience()
        self._limit = asyncio.Semaphore(options.concurrency)
        self._settings = ArmSettings(
            seed=options.seed,
            deadline_s=options.deadline_s,
            max_tokens=options.max_tokens,
            roles=options.roles,
        )

    async def run(self, log: ResultLog) -> int:
        """Answer, then summarise; how many items failed."""
        plan = self._resume(self._out / "plan.json")
        evaluation = Evaluation(
            self._samples,
            log,
            self._options.concurrency,
            self._say,
            progress_every_s=self._options.progress_every_s,
        )
        arms = self._first_arms()
        try:
            await evaluation.run(arms)
            if self._options.matched_votes:
                plan = self._match(plan, log)
                matched = self._matched_arms(plan)
                arms = [*arms, *matched]
                await evaluation.run(matched)
        finally:
            self._summarise([arm.name for arm in arms], log, plan)
        return evaluation.errors

    def _resume(self, path: Path) -> Plan:
        now = Plan(
            seed=self._options.seed,
            max_tokens=self._options.max_tokens,
            vote_temperature=self._options.vote_temperature,
            roles=self._options.roles,
            flows={name: self._runtime.catalog.flows.get(name).version for name in self._options.flows},
            samples=digest_of_samples(self._samples),
        )
        before = read_plan(path)
        plan = now if before is None else before.joined(now)
        write_atomically(path, plan.model_dump_json(indent=1))
        return plan

    def _first_arms(self) -> list[Arm]:
        flows = [
            FlowArm(self._runtime.catalog.flows.get(name), self._runtime.run, self._patience, self._settings)
            for name in self._options.flows
        ]
        singles = [self._vote(model, 1, f"model:{model}", 0.0) for model in self._options.models]
        votes = [
            self._vote(model, count, f"votes:{model}@{count}", self._options.vote_temperature)
            for model in self._options.models
            for count in self._options.votes
        ]
        return [*flows, *singles, *votes]

    def _match(self, plan: Plan, log: ResultLog) -> Plan:
        """Fix the numbers of samples by the mean tokens measured; a number once fixed stays for reruns."""
        votes = dict(plan.votes)
        for flow in self._options.flows:
            for model in self._options.models:
                name = matched_name(model, flow)
                if name not in votes:
                    votes[name] = samples_for_tokens(
                        mean_tokens(f"flow:{flow}", log), mean_tokens(f"model:{model}", log)
                    )
        plan = plan.model_copy(update={"votes": votes})
        write_atomically(self._out / "plan.json", plan.model_dump_json(indent=1))
        return plan

    def _matched_arms(self, plan: Plan) -> list[Arm]:
        names = [(m, matched_name(m, flow)) for flow in self._options.flows for m in self._options.models]
        return [self._vote(m, plan.votes[name], name, self._options.vote_temperature) for m, name in names]

    def _vote(self, model: str, samples: int, label: str, temperature: float) -> VoteArm:
        return VoteArm(
            model=model,
            samples=samples,
            temperature=temperature,
            label=label,
            generate=self._runtime.generate,
            patience=self._patience,
            settings=self._settings,
            limit=self._limit,
        )

    def _summarise(self, arms: Sequence[str], log: ResultLog, plan: Plan) -> None:
        wanted = {sample.id for sample in self._samples}
        records = {arm: [record for record in log.of(arm) if record.id in wanted] for arm in arms}
        summary = summarise(records)
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "data set": f"{self._options.dataset.name}, {len(self._samples)} samples",
            "seed": str(self._options.seed),
            "concurrency": str(self._options.concurrency),
            **{f"flow {name}": f"version {plan.flows[name]}" for name in self._options.flows},
            **{name: f"{plan.votes[name]} samples" for name in arms if name in plan.votes},
        }
        page = render(summary, "Evaluation", facts)
        write_atomically(self._out / "summary.md", page)
        body = {"facts": facts, **summary.model_dump(mode="json")}
        write_atomically(self._out / "summary.json", json.dumps(body, indent=1, ensure_ascii=False) + "\n")
        self._say(page)


def matched_name(model: str, flow: str) -> str:
    """The arm of a vote at a flow's tokens."""
    return f"votes:{model}=flow:{flow}"


def mean_tokens(arm: str, log: ResultLog) -> float:
    """Prompt and completion tokens of an item, on average; raises ProviderError when no item was answered."""
    row = summarise_arm(arm, log.of(arm))
    total = (row.prompt_tokens or 0.0) + (row.completion_tokens or 0.0)
    if total <= 0:
        raise ProviderError(f"{arm} has no answered item, so that its tokens cannot be matched")
    return total
