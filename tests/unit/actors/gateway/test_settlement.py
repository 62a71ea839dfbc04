"""Tokens to money."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.settlement import (
    ASSUMED_COMPLETION_USD_PER_MTOK,
    ASSUMED_PROMPT_USD_PER_MTOK,
    Settlement,
    worst_case_usd,
)
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.generation import Message
from tests.unit.actors.gateway.played import model


def result(prompt: int, completion: int, **fields: object) -> EngineResult:
    return EngineResult("x", "stop", prompt, completion, **fields)  # type: ignore[arg-type]


def test_a_dollar_a_million_tokens_is_a_micro_dollar_a_token() -> None:
    spec = model("m", cost_profile={"prompt_usd_per_mtok": 0.1, "completion_usd_per_mtok": 3})
    usage = Settlement([spec]).usage(spec, result(30, 7))
    assert usage.cost_micro_usd == 24 and not usage.estimated
    assert Settlement([spec]).usage(spec, result(31, 7)).cost_micro_usd == 25, "rounded up"


def test_a_free_model_is_free_and_a_fact() -> None:
    spec = model("m")
    usage = Settlement([spec]).usage(spec, result(30, 7))
    assert usage.cost_micro_usd == 0 and not usage.estimated


def test_an_unknown_price_is_assumed_dear_and_flagged_never_zero() -> None:
    unknown = model("m", cost_profile={"prompt_usd_per_mtok": None, "completion_usd_per_mtok": None})
    usage = Settlement([unknown]).usage(unknown, result(100, 10))
    assert usage.cost_micro_usd == 100 * ASSUMED_PROMPT_USD_PER_MTOK + 10 * ASSUMED_COMPLETION_USD_PER_MTOK
    assert usage.estimated
    dear = model("d", cost_profile={"prompt_usd_per_mtok": 20, "completion_usd_per_mtok": 90})
    assert Settlement([unknown, dear]).usage(unknown, result(100, 10)).cost_micro_usd == 2900


def test_the_engines_own_price_goes_first() -> None:
    unknown = model("m", cost_profile={"prompt_usd_per_mtok": None, "completion_usd_per_mtok": None})
    usage = Settlement([unknown]).usage(unknown, result(100, 10, cost_micro_usd=77))
    assert usage.cost_micro_usd == 77 and not usage.estimated


def test_counts_that_the_provider_did_not_tell_stay_flagged() -> None:
    spec = model("m")
    assert Settlement([spec]).usage(spec, result(1, 1, estimated=True)).estimated


def test_a_cut_stream_is_settled_on_what_was_seen() -> None:
    spec = model("m", cost_profile={"prompt_usd_per_mtok": 1, "completion_usd_per_mtok": 1})
    call = EngineCall("r", "m", (Message(role="user", content="x" * 41),), 100)
    usage = Settlement([spec]).cut_off(spec, call, 5)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cost_micro_usd) == (11, 5, 16)
    assert usage.estimated


def test_the_worst_case_of_an_unknown_price_is_unknown() -> None:
    assert worst_case_usd(model("m", cost_profile={"prompt_usd_per_mtok": None}), 1, 1) is None
    assert worst_case_usd(model("m", cost_profile={"prompt_usd_per_mtok": 1}), 1_000_000, 5) == 1.0


@given(
    prompt=st.integers(0, 10**6),
    completion=st.integers(0, 10**6),
    prompt_price=st.floats(0, 200),
    completion_price=st.floats(0, 200),
)
def test_money_is_whole_and_never_too_little(
    prompt: int, completion: int, prompt_price: float, completion_price: float
) -> None:
    profile = {"prompt_usd_per_mtok": prompt_price, "completion_usd_per_mtok": completion_price}
    spec = model("m", cost_profile=profile)
    cost = Settlement([spec]).usage(spec, result(prompt, completion)).cost_micro_usd
    exact = prompt * prompt_price + completion * completion_price
    assert isinstance(cost, int) and exact - 1e-6 <= cost < exact + 1
