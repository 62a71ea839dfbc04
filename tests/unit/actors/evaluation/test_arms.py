"""Flows, models and votes as arms."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.arms import ArmSettings, FlowArm, VoteArm, first_text, seed_of
from actors.evaluation.dataset import Sample
from actors.evaluation.patience import Patience
from registries.contracts.errors import ProviderError
from registries.contracts.runs import ErrorFact
from tests.unit.actors.evaluation.fake_runtime import FakeRuntime

ODD = Sample(id="odd", input="What is 2 + 3?", target="5", metadata={"category": "add"})
SETTINGS = ArmSettings(seed=4, deadline_s=9, max_tokens=16, roles={"creator": "adder"})


def flow_arm(runtime: FakeRuntime, flow: str = "challenge") -> FlowArm:
    return FlowArm(runtime.catalog.flows.get(flow), runtime.run, Patience(), SETTINGS)


def vote_arm(runtime: FakeRuntime, samples: int, limit: int = 2, temperature: float = 0.7) -> VoteArm:
    return VoteArm(
        "adder",
        samples,
        temperature,
        "votes",
        runtime.generate,
        Patience(),
        SETTINGS,
        asyncio.Semaphore(limit),
    )


async def test_a_flow_is_scored_first_and_final() -> None:
    runtime = FakeRuntime()
    record = await flow_arm(runtime).answer(ODD)
    assert (record.arm, record.id, record.category) == ("flow:challenge", "odd", "add")
    assert (record.first_answer, record.first_correct) == ("It is 6", False)
    assert (record.final_answer, record.final_correct) == ("= 5", True)
    assert (record.tokens, record.cost_micro_usd, record.calls, record.rounds) == (30, 7, 3, 3)
    order = runtime.orders[0]
    assert record.run_id == order.run_id
    assert order.request.seed == seed_of(4, "odd")
    assert order.request.models == {"creator": "adder"}
    assert (order.request.target, order.request.max_tokens, order.request.deadline_s) == ("5", 16, 9)
    assert (order.user, order.request.on_disconnect) == ("evaluation", "cancel")


async def test_a_flow_without_a_baseline_has_no_first_answer() -> None:
    record = await flow_arm(FakeRuntime(), "plain").answer(ODD)
    assert (record.first_answer, record.first_correct, record.final_correct) == (None, None, True)


async def test_a_failed_run_is_wrong_and_says_why() -> None:
    fault = ErrorFact(code="provider_error", message="down")
    record = await flow_arm(FakeRuntime(run_faults={ODD.input: fault})).answer(ODD)
    assert (record.error, record.final_correct, record.first_correct) == (fault, False, None)


async def test_the_baseline_is_its_first_visit() -> None:
    runtime = FakeRuntime()
    flow = runtime.catalog.flows.get("challenge")
    result = await runtime.run(flow_arm(runtime)._order(ODD))
    assert first_text(flow, result) == "It is 6"
    failed = result.model_copy(update={"nodes": (result.nodes[1].model_copy(update={"status": "failed"}),)})
    assert first_text(flow, failed) is None


async def test_a_vote_sums_and_counts() -> None:
    runtime = FakeRuntime()
    record = await vote_arm(runtime, samples=5).answer(ODD)
    assert (record.calls, record.tokens) == (5, 50)
    assert sorted(request.seed or 0 for request in runtime.requests) == sorted(
        seed_of(4, "odd", i) for i in range(5)
    )
    assert {request.temperature for request in runtime.requests} == {0.7}
    assert runtime.most_running["call"] == 2
    wrong = sum((request.seed or 0) % 3 == 0 for request in runtime.requests)
    assert record.final_correct is (wrong < 3)


async def test_one_sample_is_the_model_alone() -> None:
    record = await vote_arm(FakeRuntime(), samples=1, temperature=0.0).answer(ODD)
    assert record.first_answer == record.final_answer == "5"
    assert record.final_correct is True


async def test_a_sample_that_fails_fails_the_item_with_its_own_error() -> None:
    runtime = FakeRuntime(faults={ODD.input: ProviderError("down")})
    with pytest.raises(ProviderError, match="down"):
        await vote_arm(runtime, samples=3).answer(ODD)


@given(st.integers(0, 2**31 - 1), st.text(max_size=20), st.integers(0, 200))
def test_seeds_are_fixed_and_fit(seed: int, sample_id: str, index: int) -> None:
    made = seed_of(seed, sample_id, index)
    assert made == seed_of(seed, sample_id, index)
    assert 0 <= made < 2**31
