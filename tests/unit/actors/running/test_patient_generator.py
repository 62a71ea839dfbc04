"""Nodes wait for a full model, within their time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.gateway.faults import FULL
from actors.running.patient_generator import JITTER, PatientGenerator
from registries.contracts.errors import CapacityError
from registries.contracts.generation import (
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
)
from tests.unit.flows.fakes import FakeGenerator


class FullModel:
    """Refuses the first ``times`` calls; time passes only while somebody waits."""

    def __init__(self, times: int, error: CapacityError, after_chunk: bool = False) -> None:
        self.now = 0.0
        self.deadlines: list[float | None] = []
        self._times = times
        self._error = error
        self._after_chunk = after_chunk
        self._inner = FakeGenerator()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patient(self) -> PatientGenerator:
        return PatientGenerator(self, clock=lambda: self.now, sleep=self.sleep)

    def resolve_model(self, request: GenerationRequest) -> str:
        return self._inner.resolve_model(request)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self.deadlines.append(request.deadline_s)
        if len(self.deadlines) <= self._times:
            raise self._error
        return await self._inner.generate(request)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk | GenerationResult]:
        if self._after_chunk:
            yield GenerationChunk(text="half")
        yield await self.generate(request)


REFUSED = CapacityError("the model is full", retry_after_s=1.0, context={FULL: True})


def ask(deadline_s: float | None) -> GenerationRequest:
    return GenerationRequest(prompt="What is 48 + 37?", deadline_s=deadline_s)


async def test_a_full_model_is_waited_for_with_the_time_that_remains() -> None:
    model = FullModel(3, REFUSED)
    result = await model.patient().generate(ask(60))
    assert result.text
    assert model.deadlines[0] == 60 and len(model.deadlines) == 4
    assert model.deadlines == sorted(model.deadlines, key=lambda left: -(left or 0))
    assert 3 * (1 - JITTER) <= model.now <= 3 * (1 + JITTER)
    assert model.deadlines[3] == pytest.approx(60 - model.now)


async def test_a_stream_that_has_not_begun_is_begun_again() -> None:
    model = FullModel(2, REFUSED)
    items = [item async for item in model.patient().stream(ask(60))]
    assert isinstance(items[-1], GenerationResult) and len(model.deadlines) == 3


async def test_a_stream_that_has_begun_is_not() -> None:
    model = FullModel(1, REFUSED, after_chunk=True)
    with pytest.raises(CapacityError):
        async for _ in model.patient().stream(ask(60)):
            pass
    assert len(model.deadlines) == 1


@pytest.mark.parametrize(
    ("deadline_s", "error", "least", "most"),
    [
        (5, REFUSED, 3, 11),
        (None, REFUSED, 1, 1),
        (60, CapacityError("the provider rests", retry_after_s=1.0), 1, 1),
    ],
    ids=["the deadline ends it", "no deadline", "a provider that rests"],
)
async def test_when_it_is_given_up(
    deadline_s: float | None, error: CapacityError, least: int, most: int
) -> None:
    model = FullModel(1000, error)
    with pytest.raises(CapacityError, match=error.message):
        await model.patient().generate(ask(deadline_s))
    assert least <= len(model.deadlines) <= most
    assert model.now < (deadline_s or 1)
