"""What a batch waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from actors.evaluation.patience import LostCall, Patience
from registries.contracts.errors import CapacityError, ParleyError, ProviderError
from tests.unit.actors.evaluation.clocks import ManualClock


def playing(*outcomes: ParleyError | str) -> Callable[[], Awaitable[str]]:
    left = list(outcomes)

    async def attempt() -> str:
        outcome = left.pop(0)
        if isinstance(outcome, ParleyError):
            raise outcome
        return outcome

    return attempt


def patience(clock: ManualClock) -> Patience:
    return Patience(patience_s=20, sleep=clock.sleep, monotonic=clock.monotonic)


async def test_full_queues_are_waited_out() -> None:
    clock = ManualClock()
    full = CapacityError("full", retry_after_s=2.0)
    assert await patience(clock).call(playing(full, CapacityError("full"), "done")) == ("done", 0.0)
    assert clock.slept == [2.0, 0.5]


async def test_patience_ends() -> None:
    clock = ManualClock()
    with pytest.raises(CapacityError):
        await patience(clock).call(playing(*[CapacityError("full")] * 100))
    assert clock.now <= 20


async def test_a_lost_call_is_made_again_a_few_times() -> None:
    clock = ManualClock()
    lost = LostCall("died")
    assert (await patience(clock).call(playing(lost, lost, "done")))[0] == "done"
    with pytest.raises(LostCall):
        await patience(clock).call(playing(*[lost] * 10))


async def test_other_faults_are_not_retried() -> None:
    clock = ManualClock()
    with pytest.raises(ProviderError):
        await patience(clock).call(playing(ProviderError("down"), "never"))
    assert clock.slept == []
