"""Which model answers, and what is said when none can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.selection import MAX_CHAIN, Selector
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, NotFound, ValidationError
from registries.contracts.generation import GenerationRequest
from registries.specs import ModelSpec, StrategySpec
from tests.unit.actors.gateway.played import local_model, model, strategy

PLAIN = strategy()


def selector(
    specs: list[ModelSpec], strategies: list[StrategySpec] | None = None, **settings: Any
) -> Selector:
    counter = settings.pop("count_tokens", None)
    tiers = settings.pop("tiers", None)
    config = RuntimeConfig.model_validate({"home": "x", "default_strategy": "plain", **settings})
    return Selector(Catalog(specs, strategies or [PLAIN], tiers=tiers), config, counter)


def ask(**fields: Any) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "2 + 2?", **fields})


def keys(chooser: Selector, **fields: Any) -> list[str]:
    return [m.key for m in chooser.choose(ask(**fields)).models]


def test_a_named_model_is_first_and_the_strategys_chain_follows() -> None:
    chain = strategy(fallbacks=("c", "tier:light", "a", "c"))
    chooser = selector([model("a"), model("b"), model("c")], [chain], tiers={"light": "b"})
    assert keys(chooser, model_key="a") == ["a", "c", "b"]
    assert keys(chooser, model_key="tier:light") == ["b", "c", "a"]


def test_the_models_own_strategy_counts_when_the_request_names_none() -> None:
    models = [model("a", default_strategy="careful")]
    chooser = selector(models, [PLAIN, strategy("careful"), strategy("fast")])
    assert chooser.strategy(ask(model_key="a")).name == "careful"
    assert chooser.strategy(ask(model_key="a", strategy="fast")).name == "fast"
    assert chooser.strategy(ask()).name == "plain"
    with pytest.raises(NotFound, match=r"unknown strategy 'fats'. Did you mean 'fast'\?"):
        chooser.strategy(ask(strategy="fats"))


def test_an_unknown_model_is_named_with_a_suggestion() -> None:
    with pytest.raises(NotFound, match=r"Did you mean 'nano-m'\?"):
        selector([model("nano-m")]).choose(ask(model_key="nanom"))


@pytest.mark.parametrize(("prefer", "first"), [("quality", "good"), ("cost", "cheap"), ("latency", "quick")])
def test_the_strategy_ranks_what_fits(prefer: str, first: str) -> None:
    models = [
        model("good", quality=0.9, typical_latency_s=5, cost_profile={"prompt_usd_per_mtok": 9}),
        model("cheap", quality=0.2, typical_latency_s=3, cost_profile={"prompt_usd_per_mtok": 0.1}),
        model("quick", quality=0.3, typical_latency_s=0.1, cost_profile={"prompt_usd_per_mtok": 5}),
        model("mystery", quality=0.1, typical_latency_s=9, cost_profile={"prompt_usd_per_mtok": None}),
    ]
    ranked = keys(selector(models, [strategy(prefer=prefer)]))
    assert ranked[0] == first
    assert prefer != "cost" or ranked[-1] == "mystery", "an unknown price is not a low one"


def test_the_default_provider_goes_first() -> None:
    models = [model("far", quality=1.0), local_model("near", quality=0.1)]
    assert keys(selector(models))[0] == "near"
    assert keys(selector(models, default_provider="far"))[0] == "far"


def test_task_types_filter_when_we_choose_but_not_when_the_caller_names() -> None:
    models = [model("code", task_types=("code",), quality=1), model("all"), model("off", enabled=False)]
    chooser = selector(models)
    assert keys(chooser, task_type="poetry") == ["all"]
    assert keys(chooser, task_type="code") == ["code", "all"]
    assert keys(chooser, task_type="poetry", model_key="code")[0] == "code"


@pytest.mark.parametrize(
    ("constraints", "told"),
    [
        ({"vram": 2}, "big needs 8 GB of VRAM, constraints.vram is 2"),
        ({"latency_budget": 0.5}, "big typically takes 1 s, constraints.latency_budget is 0.5"),
        ({"cost_budget": 0.0001}, "big may cost 0.040960 US dollars, constraints.cost_budget is 0.0001"),
    ],
)
def test_no_model_fits_is_said_with_numbers(constraints: dict[str, float], told: str) -> None:
    big = model("big", min_vram_gb=8, cost_profile={"completion_usd_per_mtok": 40})
    with pytest.raises(CapacityError) as caught:
        selector([big]).choose(ask(constraints=constraints, max_tokens=1024))
    assert told in caught.value.message
    with pytest.raises(CapacityError, match="model 'big'"):
        selector([big]).choose(ask(constraints=constraints, max_tokens=1024, model_key="big"))


def test_an_unknown_price_never_fits_a_cost_budget() -> None:
    mystery = model("mystery", cost_profile={"prompt_usd_per_mtok": None})
    with pytest.raises(CapacityError, match="has no known price"):
        selector([mystery]).choose(ask(constraints={"cost_budget": 1000}))


def test_a_local_model_beyond_the_configured_vram_is_not_chosen() -> None:
    big, small = local_model("big", min_vram_gb=8, quality=1), local_model("small")
    assert keys(selector([big, small])) == ["small"]
    assert keys(selector([big, small], max_vram_usage_gb=16.0))[0] == "big"


@pytest.mark.parametrize(
    ("spec", "settings", "told"),
    [
        (model("m", enabled=False), {}, "model 'm' is disabled in the registry"),
        (local_model("m"), {"models": ("n",)}, "model 'm' is not loaded in this runtime; loaded: n"),
        (model("m", api_key_env="X_KEY"), {}, "model 'm' needs the provider key X_KEY, which is not set"),
    ],
)
def test_a_model_out_of_reach_is_refused_with_the_reason(
    spec: ModelSpec, settings: dict[str, Any], told: str
) -> None:
    chooser = selector([spec, local_model("n")], **settings)
    with pytest.raises(ValidationError, match=told):
        chooser.choose(ask(model_key="m"))
    assert keys(chooser) == ["n"], "and never chosen"


def test_a_configured_key_brings_a_model_within_reach() -> None:
    chooser = selector([model("m", api_key_env="X_KEY")], provider_keys={"X_KEY": "s"})
    assert keys(chooser, model_key="m") == ["m"]


def test_a_prompt_longer_than_the_window_is_refused_with_numbers() -> None:
    models = [model("m", context_window=20)]
    with pytest.raises(ValidationError, match=r"window of 20 tokens; the prompt has 31") as caught:
        selector(models, count_tokens=lambda spec, request: 31).choose(ask(model_key="m"))
    assert caught.value.param == "prompt"
    with pytest.raises(ValidationError, match=r"1000 characters are at least 31 tokens"):
        selector(models).choose(ask(prompt="x" * 1000, model_key="m"))
    roomy = model("roomy", context_window=5000, quality=0)
    assert keys(selector([*models, roomy]), prompt="x" * 1000) == ["roomy"]


def test_tools_are_refused_because_an_answer_cannot_carry_their_calls() -> None:
    tools = {"tools": ({"type": "function"},)}
    able = model("able", capabilities=("chat", "tools"))
    for named in ({}, {"model_key": "able"}):
        with pytest.raises(ValidationError, match=r"context\.tools is not taken yet") as caught:
            selector([able]).choose(ask(context=tools, **named))
        assert caught.value.param == "context.tools"


def test_fallbacks_that_cannot_serve_the_request_are_left_out() -> None:
    chain = strategy(fallbacks=("off", "blind", "b"))
    seeing = model("a", capabilities=("chat", "vision"))
    also = model("b", capabilities=("chat", "vision"))
    chooser = selector([seeing, model("off", enabled=False), model("blind"), also], [chain])
    image = {"type": "image_url", "url": "http://x"}
    assert keys(chooser, model_key="a", attachments=(image,)) == ["a", "b"]


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(CapacityError, match="no enabled entry"):
        selector([model("m", enabled=False)]).choose(ask())


@pytest.mark.parametrize(
    ("asked", "configured", "limit", "expected"),
    [(None, 1024, 512, 512), (None, 100, 512, 100), (700, 100, 512, 700), (9000, 100, 512, 4096)],
)
def test_max_tokens(asked: int | None, configured: int, limit: int, expected: int) -> None:
    chooser = selector([model("m")], max_tokens_default=configured)
    plan = strategy(limits={"max_tokens": limit})
    assert chooser.max_tokens(model("m"), ask(max_tokens=asked), plan) == expected


@given(
    count=st.integers(1, 12),
    enabled=st.sets(st.integers(0, 11)),
    vision=st.sets(st.integers(0, 11)),
    wants_vision=st.booleans(),
    prefer=st.sampled_from(["quality", "cost", "latency"]),
    fallbacks=st.lists(st.integers(0, 11), max_size=5),
)
def test_every_candidate_can_serve_the_request(
    count: int, enabled: set[int], vision: set[int], wants_vision: bool, prefer: str, fallbacks: list[int]
) -> None:
    models = [
        model(
            f"m{n}",
            enabled=n in enabled,
            quality=n / 12,
            capabilities=("chat", "vision") if n in vision else ("chat",),
        )
        for n in range(count)
    ]
    plan = strategy(prefer=prefer, fallbacks=tuple(f"m{n}" for n in fallbacks if n < count))
    attachments = ({"type": "image_url", "url": "http://x"},) if wants_vision else ()
    able = {m.key for m in models if m.enabled and (m.has("vision") or not wants_vision)}
    try:
        chain = keys(selector(models, [plan]), attachments=attachments)
    except (CapacityError, ValidationError):
        assert not able
        return
    assert chain and len(chain) <= MAX_CHAIN and len(set(chain)) == len(chain)
    assert set(chain) <= able
    if prefer == "quality":
        assert chain[0] == max(able, key=lambda key: int(key[1:]))
