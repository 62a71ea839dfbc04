"""The ways to answer a sample that an evaluation compares: a flow, one model, a plain vote."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from actors.evaluation.dataset import Sample
from actors.evaluation.patience import Patience
from actors.evaluation.records import ItemRecord
from actors.evaluation.scoring import extract_answer, is_correct, is_numeric
from actors.evaluation.voting import majority
from registries.contracts.generation import GenerationRequest, GenerationResult
from registries.contracts.runs import RunOrder, RunRequest, RunResult
from registries.specs import FlowSpec

FlowRun = Callable[[RunOrder], Awaitable[RunResult]]
Generate = Callable[[GenerationRequest], Awaitable[GenerationResult]]


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """What all arms of an evaluation share. ``deadline_s`` is a run's or a call's, in seconds."""

    seed: int = 0
    deadline_s: float = 300.0
    max_tokens: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    tenant: str = "default"


class Arm(Protocol):
    """One way to answer. Errors: those of registries.contracts.errors; cancelling cancels the calls."""

    @property
    def name(self) -> str:
        """Unique in the evaluation; the key of its results."""
        ...

    async def answer(self, sample: Sample) -> ItemRecord:
        """Answer the sample; the result carries its correctness."""
        ...


def seed_of(seed: int, sample_id: str, index: int = 0) -> int:
    """A seed for one call, the same on every run of the same evaluation, for every arm alike."""
    digest = hashlib.sha256(f"{seed}/{sample_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFF_FFFF


@dataclass(frozen=True)
class FlowArm:
    """A flow, through the FlowRunner that serves everybody."""

    flow: FlowSpec
    run: FlowRun
    patience: Patience
    settings: ArmSettings

    @property
    def name(self) -> str:
        """``flow:NAME``"""
        return f"flow:{self.flow.name}"

    async def answer(self, sample: Sample) -> ItemRecord:
        """Run the flow once; a run that failed is a record with its error."""
        result, latency_s = await self.patience.call(lambda: self.run(self._order(sample)))
        first = first_text(self.flow, result)
        return ItemRecord(
            arm=self.name,
            id=sample.id,
            category=sample.category,
            first_answer=first,
            final_answer=result.answer,
            first_correct=None if first is None else is_correct(first, sample.targets),
            final_correct=is_correct(result.answer, sample.targets) if result.error is None else False,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            cost_micro_usd=result.usage.cost_micro_usd,
            latency_s=latency_s,
            calls=sum(
                node.status == "completed" and node.model_resolved is not None for node in result.nodes
            ),
            rounds=result.rounds,
            run_id=result.run_id,
            error=result.error,
        )

    def _order(self, sample: Sample) -> RunOrder:
        """A new run_id a try: the runner knows a run by it, and one that was lost may not come twice."""
        request = RunRequest(
            prompt=sample.input,
            flow_type=self.flow.name,
            models=dict(self.settings.roles),
            max_tokens=self.settings.max_tokens,
            seed=seed_of(self.settings.seed, sample.id),
            deadline_s=self.settings.deadline_s,
            target=sample.target if isinstance(sample.target, str) else None,
            metadata={"evaluation_item": sample.id[:200]},
            on_disconnect="cancel",
        )
        run_id = str(uuid.uuid4())
        return RunOrder(
            run_id=run_id,
            request_id=run_id,
            request=request,
            deadline_s=self.settings.deadline_s,
            tenant=self.settings.tenant,
            user="evaluation",
        )


def first_text(flow: FlowSpec, result: RunResult) -> str | None:
    """Text of the first visit of the baseline node; None where there is none, or it did not answer."""
    visits = [node for node in result.nodes if node.id == flow.output.baseline and node.status == "completed"]
    return min(visits, key=lambda node: node.visit).text if visits else None


@dataclass(frozen=True)
class VoteArm:
    """One model asked ``samples`` times, and the majority's answer; one sample is the model alone.

    ``label`` names the arm. Latency is the slowest sample's: they do not wait for each other. ``limit``
    bounds the calls of all votes together, since a vote of many samples is many calls.
    """

    model: str
    samples: int
    temperature: float
    label: str
    generate: Generate
    patience: Patience
    settings: ArmSettings
    limit: asyncio.Semaphore

    @property
    def name(self) -> str:
        """``model:KEY``, ``votes:KEY@K`` or ``votes:KEY=flow:NAME``"""
        return self.label

    async def answer(self, sample: Sample) -> ItemRecord:
        """Ask, count, score; one sample that fails fails the item, for a vote of fewer is another arm."""
        asked = await self._ask_all(sample)
        results = [result for result, _ in asked]
        numeric = is_numeric(sample.targets)
        winner = results[majority([extract_answer(result.text, numeric) for result in results])]
        first = results[0].text
        return ItemRecord(
            arm=self.name,
            id=sample.id,
            category=sample.category,
            first_answer=first,
            final_answer=winner.text,
            first_correct=is_correct(first, sample.targets),
            final_correct=is_correct(winner.text, sample.targets),
            prompt_tokens=sum(result.usage.prompt_tokens for result in results),
            completion_tokens=sum(result.usage.completion_tokens for result in results),
            cost_micro_usd=sum(result.usage.cost_micro_usd for result in results),
            latency_s=max(latency_s for _, latency_s in asked),
            calls=len(results),
        )

    async def _ask_all(self, sample: Sample) -> list[tuple[GenerationResult, float]]:
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._ask(sample, i)) for i in range(self.samples)]
        except ExceptionGroup as failures:
            # the siblings were cancelled: the first failure is the item's
            raise failures.exceptions[0] from None
        return [task.result() for task in asked]

    async def _ask(self, sample: Sample, index: int) -> tuple[GenerationResult, float]:
        async with self.limit:
            return await self.patience.call(lambda: self.generate(self._request(sample, index)))

    def _request(self, sample: Sample, index: int) -> GenerationRequest:
        return GenerationRequest(
            prompt=sample.input,
            model_key=self.model,
            temperature=self.temperature,
            max_tokens=self.settings.max_tokens,
            seed=seed_of(self.settings.seed, sample.id, index),
            metadata={"user": "evaluation", "sample": str(index)},
            request_id=str(uuid.uuid4()),
            deadline_s=self.settings.deadline_s,
        )
