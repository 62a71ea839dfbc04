"""A runtime that answers sums by rule, and fails where it is told to."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping

from registries.catalog import Catalog
from registries.contracts.errors import ParleyError
from registries.contracts.generation import GenerationRequest, GenerationResult, Timings, Usage
from registries.contracts.runs import ErrorFact, NodeResult, RunOrder, RunResult
from registries.specs import FlowSpec, ModelSpec, NodeSpec, OutputSpec, StrategySpec

SUM = re.compile(r"(\d+) \+ (\d+)")


def catalog() -> Catalog:
    """Two flows, with and without a first answer, and one model."""
    nodes = (NodeSpec(id="creator", kind="generate"), NodeSpec(id="refiner", kind="generate"))
    challenge = FlowSpec(
        name="challenge", nodes=nodes, output=OutputSpec(answer=("refiner",), baseline="creator")
    )
    plain = FlowSpec(name="plain", nodes=nodes, output=OutputSpec(answer=("refiner",)))
    model = ModelSpec(
        key="adder",
        family="test",
        provider="local",
        engine="scripted",
        location="-",
        context_window=100,
        default_strategy="optimized",
    )
    return Catalog([model], [StrategySpec(name="optimized")], flows=[challenge, plain])


class FakeRuntime:
    """First answers are off by one for odd sums, final ones never; a model at temperature errs by its seed.

    ``faults`` maps a prompt to the error that answering it raises, ``run_faults`` to one in the result.
    """

    def __init__(
        self,
        faults: Mapping[str, ParleyError] | None = None,
        run_faults: Mapping[str, ErrorFact] | None = None,
    ) -> None:
        self.catalog = catalog()
        self.faults = dict(faults or {})
        self.run_faults = dict(run_faults or {})
        self.orders: list[RunOrder] = []
        self.requests: list[GenerationRequest] = []
        self.running = Counter[str]()
        self.most_running = Counter[str]()

    async def run(self, order: RunOrder) -> RunResult:
        """A run of two nodes and three rounds."""
        self.orders.append(order)
        await self._work("run", order.request.prompt)
        total = sum_of(order.request.prompt)
        first = NodeResult(
            id="creator",
            role="creator",
            status="completed",
            text=f"It is {total + total % 2}",
            model_resolved="x",
        )
        revisited = first.model_copy(update={"visit": 2, "text": "later"})
        refiner = NodeResult(
            id="refiner", role="refiner", status="completed", text=f"= {total}", model_resolved="x"
        )
        error = self.run_faults.get(order.request.prompt)
        return RunResult(
            run_id=order.run_id,
            flow=order.request.flow_type,
            flow_version="v",
            status="failed" if error else "completed",
            answer="" if error else refiner.text,
            nodes=() if error else (revisited, first, refiner),
            usage=Usage(prompt_tokens=20, completion_tokens=10, cost_micro_usd=7),
            rounds=3,
            error=error,
        )

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """One answer; wrong in a third of the seeds when it is sampled."""
        self.requests.append(request)
        await self._work("call", request.prompt)
        off = int(bool(request.temperature) and (request.seed or 0) % 3 == 0)
        text = f"{sum_of(request.prompt) + off}"
        usage = Usage(prompt_tokens=8, completion_tokens=2)
        return GenerationResult(
            text=text,
            tokens_generated=2,
            timings=Timings(),
            usage=usage,
            source="local",
            model_resolved="adder",
        )

    async def _work(self, kind: str, prompt: str) -> None:
        self.running[kind] += 1
        self.most_running[kind] = max(self.most_running[kind], self.running[kind])
        try:
            await asyncio.sleep(0)
            if prompt in self.faults:
                raise self.faults[prompt]
        finally:
            self.running[kind] -= 1


def sum_of(prompt: str) -> int:
    """Of "What is 3 + 4?"."""
    found = SUM.search(prompt)
    assert found, prompt
    return int(found[1]) + int(found[2])
