"""The gateway as its callers see it: one retry layer, breakers, fallback, deadline, settlement."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import aclosing

import pytest

from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import (
    BudgetError,
    CapacityError,
    Fault,
    NotFound,
    ProviderError,
    ValidationError,
)
from registries.contracts.generation import (
    Attachment,
    Context,
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
)
from registries.specs import RetryPolicy
from tests.unit.actors.gateway.played import PlayedCompleter, Stage, local_model, model, stage, strategy


def ask(key: str | None = "a", **fields: object) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "What is 2 + 2?", "model_key": key, **fields})


def down(fault: Fault = Fault.REFUSED, **fields: object) -> ProviderError:
    return ProviderError("it is down", fault, "a", "a", **fields)  # type: ignore[arg-type]


async def test_an_answer_tells_where_it_came_from_and_what_it_cost() -> None:
    played = stage({"a": PlayedCompleter("4")}, specs=[model("a", cost_profile={"prompt_usd_per_mtok": 2.0})])
    answer = await played.gateway.generate(ask(request_id="r1"))
    assert (answer.text, answer.source, answer.model_resolved, answer.strategy) == ("4", "a", "a", "plain")
    assert answer.usage.cost_micro_usd == 20 and not answer.usage.estimated
    assert [a.outcome for a in answer.attempts] == ["ok"]
    assert answer.breaker is not None and answer.breaker.state == "closed"
    assert answer.request_id == "r1"
    assert played.heard.selections == [("a", "a", "plain")]
    assert played.gateway.snapshot()["in_flight"] == 0


async def test_the_source_tells_real_local_weights_from_played_ones() -> None:
    real = local_model("a", engine="transformers")
    assert (await stage({"a": PlayedCompleter()}, specs=[real]).gateway.generate(ask())).source == "local"
    played = local_model("a", provider="scripted")
    answer = await stage({"a": PlayedCompleter()}, specs=[played]).gateway.generate(ask())
    assert answer.source == "scripted"


async def test_the_call_carries_every_choice_made() -> None:
    played = stage({"a": PlayedCompleter()}, strategies=[strategy(sampling={"temperature": 0.7, "top_k": 9})])
    await played.gateway.generate(ask(temperature=0.1, max_tokens=9000, stop=("x",), seed=5, deadline_s=7))
    call = played.players["a"].calls[0]
    assert (call.model, call.temperature, call.top_k, call.stop, call.seed) == ("there/a", 0.1, 9, ("x",), 5)
    assert call.max_tokens == 4096, "never above the model's max_output_tokens"
    assert call.deadline_s == 7


async def test_a_failed_try_is_repeated_after_backoff_and_recorded() -> None:
    played = stage({"a": PlayedCompleter(down(), down(Fault.TIMEOUT), "4")})
    answer = await played.gateway.generate(ask())
    assert [(a.outcome, a.fault) for a in answer.attempts] == [
        ("error", "refused"),
        ("error", "timeout"),
        ("ok", None),
    ]
    assert [round(s) for s in played.clock.slept] == [1, 2]
    ids = {c.request_id for c in played.players["a"].calls}
    assert len(ids) == 3, "an engine may still be aborting the last try under its id"


async def test_three_failures_open_the_breaker_and_the_call_falls_back() -> None:
    played = stage({"a": PlayedCompleter(*[down()] * 9), "b": PlayedCompleter()})
    answer = await played.gateway.generate(ask())
    assert answer.model_resolved == "b" and answer.source == "b"
    assert len(played.players["a"].calls) == 3
    assert [a.outcome for a in answer.attempts] == ["error", "error", "error", "skipped_open", "ok"]
    again = await played.gateway.generate(ask())
    assert [(a.model, a.outcome) for a in again.attempts] == [("a", "skipped_open"), ("b", "ok")]
    assert len(played.players["a"].calls) == 3, "an open breaker costs the provider no call"
    assert played.heard.moves == [("a/http://a.test/v1", "closed", "open")]


async def test_one_probe_closes_the_breaker_again() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter(*[down()] * 3, gate), "b": PlayedCompleter()})
    await played.gateway.generate(ask())
    played.clock.now += 61
    probe = asyncio.create_task(played.gateway.generate(ask()))
    await played.players["a"].arrivals(4)
    others = [await played.gateway.generate(ask()) for _ in range(5)]
    assert {o.model_resolved for o in others} == {"b"}, "while the probe runs nobody else may try"
    gate.set_result(None)
    assert (await probe).model_resolved == "a"
    assert (await played.gateway.generate(ask())).model_resolved == "a"
    assert [state for _, _, state in played.heard.moves] == ["open", "half_open", "closed"]


async def test_a_cancelled_probe_gives_its_permit_back() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter(*[down()] * 3, gate)})
    with pytest.raises(ProviderError):
        await played.gateway.generate(ask())
    played.clock.now += 61
    probe = asyncio.create_task(played.gateway.generate(ask()))
    await played.players["a"].arrivals(4)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (await played.gateway.generate(ask())).text == "ok"


async def test_all_resting_fails_fast_with_the_time_to_come_back() -> None:
    played = stage({"a": PlayedCompleter(*[down()] * 9), "b": PlayedCompleter(*[down()] * 9)})
    with pytest.raises(ProviderError):
        await played.gateway.generate(ask())
    before = played.clock.now
    with pytest.raises(CapacityError) as caught:
        await played.gateway.generate(ask())
    assert played.clock.now == before
    assert caught.value.retry_after_s is not None and 50 < caught.value.retry_after_s <= 60
    assert [a["outcome"] for a in caught.value.context["attempts"]] == ["skipped_open", "skipped_open"]


async def test_the_final_error_carries_its_attempts_through_pickling() -> None:
    played = stage({"a": PlayedCompleter(*[down()] * 9)}, breaker={"max_failures": 99})
    with pytest.raises(ProviderError) as caught:
        await played.gateway.generate(ask())
    copy = pickle.loads(pickle.dumps(caught.value))
    assert len(copy.context["attempts"]) == 4 and copy.fault is Fault.REFUSED
    assert str(copy) == "it is down"


@pytest.mark.parametrize(
    "error",
    [
        ValidationError("n is wrong", param="n"),
        NotFound("no such thing"),
        ProviderError("not this", Fault.CONTENT_POLICY, "a", "a"),
    ],
)
async def test_the_callers_faults_are_final_and_count_for_nothing(error: Exception) -> None:
    played = stage({"a": PlayedCompleter(*[error] * 9), "b": PlayedCompleter()})
    for _ in range(5):
        with pytest.raises(type(error)):
            await played.gateway.generate(ask())
    assert len(played.players["a"].calls) == 5 and not played.players["b"].calls
    assert played.gateway.snapshot()["breakers"][0]["state"] == "closed"


async def test_a_prompt_too_long_here_may_fit_the_next() -> None:
    played = stage({"a": PlayedCompleter(*[down(Fault.CONTEXT_WINDOW)] * 5), "b": PlayedCompleter()})
    for _ in range(5):
        assert (await played.gateway.generate(ask())).model_resolved == "b"
    assert not played.heard.moves


async def test_one_model_that_is_not_served_is_left_for_the_next_and_counts_for_nothing() -> None:
    played = stage({"a": PlayedCompleter(*[down(Fault.NOT_SERVED)] * 5), "b": PlayedCompleter()})
    for _ in range(5):
        assert (await played.gateway.generate(ask())).model_resolved == "b"
    assert len(played.players["a"].calls) == 5 and not played.heard.moves
    assert not played.clock.slept


async def test_a_refused_key_opens_at_once_and_for_long() -> None:
    played = stage({"a": PlayedCompleter(down(Fault.AUTH)), "b": PlayedCompleter()})
    assert (await played.gateway.generate(ask())).model_resolved == "b"
    assert not played.clock.slept
    played.clock.now += 300
    assert (await played.gateway.generate(ask())).model_resolved == "b"
    played.clock.now += 301
    assert (await played.gateway.generate(ask())).model_resolved == "a"


async def test_a_rate_limit_goes_on_to_the_next_without_opening() -> None:
    limited = down(Fault.RATE_LIMITED, retry_after_s=20.0)
    played = stage({"a": PlayedCompleter(limited), "b": PlayedCompleter()})
    assert (await played.gateway.generate(ask())).model_resolved == "b"
    assert (await played.gateway.generate(ask())).model_resolved == "b"
    assert len(played.players["a"].calls) == 1 and not played.heard.moves
    played.clock.now += 21
    assert (await played.gateway.generate(ask())).model_resolved == "a"


async def test_a_short_rate_limit_on_the_last_route_is_waited_for() -> None:
    played = stage({"a": PlayedCompleter(down(Fault.RATE_LIMITED, retry_after_s=5.0), "4")})
    answer = await played.gateway.generate(ask())
    assert answer.text == "4"
    assert 5.0 <= sum(played.clock.slept) <= 5.7


async def test_a_rate_limit_longer_than_the_deadline_is_told_at_once() -> None:
    played = stage({"a": PlayedCompleter(down(Fault.RATE_LIMITED, retry_after_s=50.0))})
    with pytest.raises(ProviderError) as caught:
        await played.gateway.generate(ask(deadline_s=10))
    assert caught.value.fault is Fault.RATE_LIMITED and caught.value.retry_after_s == 50.0
    assert not played.clock.slept


async def test_a_full_queue_is_not_retried_but_falls_back() -> None:
    full = CapacityError("full", retry_after_s=2.0)
    alone = stage({"a": PlayedCompleter(full)})
    with pytest.raises(CapacityError) as caught:
        await alone.gateway.generate(ask())
    assert caught.value.retry_after_s == 2.0 and len(alone.players["a"].calls) == 1
    played = stage({"a": PlayedCompleter(full), "b": PlayedCompleter()})
    assert (await played.gateway.generate(ask())).model_resolved == "b"


async def test_a_model_that_loads_is_waited_for_within_the_deadline() -> None:
    loading = [CapacityError("loading", retry_after_s=1.0, context={"loading": True}) for _ in range(10)]
    played = stage({"a": PlayedCompleter(*loading, "4")})
    answer = await played.gateway.generate(ask())
    assert [a.outcome for a in answer.attempts] == ["error", "ok"]
    assert played.clock.slept == [1.0] * 10
    late = stage({"a": PlayedCompleter(*loading)})
    with pytest.raises(CapacityError) as caught:
        await late.gateway.generate(ask(deadline_s=3.5))
    assert caught.value.retry_after_s == 1.0


async def test_a_look_at_a_model_that_loads_which_ends_at_the_deadline_still_says_so() -> None:
    loading = [CapacityError("loading", retry_after_s=1.0, context={"loading": True}) for _ in range(2)]

    def hangs(_: EngineCall) -> None:
        played.clock.now += 60.0
        raise TimeoutError

    played = stage({"a": PlayedCompleter(*loading, hangs)})
    with pytest.raises(CapacityError, match="loading") as caught:
        await played.gateway.generate(ask(deadline_s=3.5))
    assert caught.value.retry_after_s == 1.0 and caught.value.context["attempts"]
    # One that was called has had its chance, and the deadline is what ended it.
    played = stage({"a": PlayedCompleter(loading[0], down(), hangs)})
    with pytest.raises(BudgetError):
        await played.gateway.generate(ask(deadline_s=30))


async def test_the_deadline_is_passed_down_and_ends_the_call() -> None:
    played = stage({"a": PlayedCompleter(*[down()] * 9)}, breaker={"max_failures": 99})
    with pytest.raises((ProviderError, BudgetError)):
        await played.gateway.generate(ask(deadline_s=4))
    assert [round(c.deadline_s) for c in played.players["a"].calls] == [4, 3, 1]
    assert sum(played.clock.slept) < 4


async def test_an_engine_past_the_deadline_is_a_budget_error() -> None:
    played = stage({"a": PlayedCompleter()})

    def slow(call: EngineCall) -> EngineResult:
        played.clock.now += call.deadline_s
        raise BudgetError("deadline")

    played.players["a"].steps = [slow]
    with pytest.raises(BudgetError) as caught:
        await played.gateway.generate(ask(deadline_s=3))
    assert [a["fault"] for a in caught.value.context["attempts"]] == ["timeout"]


async def test_a_hung_provider_is_cancelled_at_the_real_deadline() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter(gate)}, strategies=[strategy(retry=RetryPolicy(max_retries=0))])
    with pytest.raises(ProviderError) as caught:
        await played.gateway.generate(ask(deadline_s=0.06))
    assert caught.value.fault is Fault.TIMEOUT and played.players["a"].cancelled == 1


async def test_a_tiny_deadline_of_one_caller_opens_no_breaker() -> None:
    played = stage({"a": PlayedCompleter()})

    def slow(call: EngineCall) -> EngineResult:
        played.clock.now += call.deadline_s
        raise BudgetError("deadline")

    for _ in range(5):
        played.players["a"].steps = [slow]
        with pytest.raises(BudgetError):
            await played.gateway.generate(ask(deadline_s=0.5))
    assert not played.heard.moves
    for _ in range(3):
        played.players["a"].steps = [slow]
        with pytest.raises(BudgetError):
            await played.gateway.generate(ask(deadline_s=20))
    assert [state for _, _, state in played.heard.moves] == ["open"]


async def test_cancelling_reaches_the_provider_and_is_recorded() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter(gate)})
    task = asyncio.create_task(played.gateway.generate(ask()))
    await played.players["a"].arrivals(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert played.players["a"].cancelled == 1
    assert [a.outcome for a, _ in played.heard.attempts] == ["cancelled"]
    assert played.gateway.snapshot()["in_flight"] == 0


async def test_an_unknown_exception_tells_no_internals() -> None:
    played = stage({"a": PlayedCompleter(KeyError("/secret/path"))}, breaker={"max_failures": 1})
    with pytest.raises(ProviderError) as caught:
        await played.gateway.generate(ask())
    assert "secret" not in str(caught.value) and caught.value.fault is Fault.BAD_RESPONSE


async def test_retries_stop_when_the_budget_is_used_up() -> None:
    async def stand_still(delay_s: float) -> None:
        await asyncio.sleep(0)

    players = {"a": PlayedCompleter(*[down()] * 500)}
    played = stage(players, sleep=stand_still, breaker={"max_failures": 9999})
    for _ in range(50):
        with pytest.raises(ProviderError):
            await played.gateway.generate(ask())
    calls = len(played.players["a"].calls)
    assert 50 + 10 <= calls <= 50 + 10 + 50 * 0.2 + 1, f"{calls} calls for 50 requests"


async def test_waiting_for_a_rate_limit_is_a_retry_too() -> None:
    limited = [down(Fault.RATE_LIMITED, retry_after_s=0.01) for _ in range(500)]
    played = stage({"a": PlayedCompleter(*limited)})
    for _ in range(50):
        with pytest.raises(ProviderError):
            await played.gateway.generate(ask())
    calls, spent_s = len(played.players["a"].calls), sum(played.clock.slept)
    assert calls <= 50 + 10 + 50 * 0.2 + spent_s + 1, f"{calls} calls for 50 requests"


async def test_looking_at_a_model_that_loads_neither_pays_into_the_budget_nor_takes_from_it() -> None:
    loading = [CapacityError("loading", retry_after_s=0.01, context={"loading": True}) for _ in range(60)]
    played = stage({"a": PlayedCompleter(*loading, "4")})
    assert (await played.gateway.generate(ask())).text == "4"
    assert len(played.clock.slept) == 60
    assert played.gateway.snapshot()["retry_budgets"] == {"a/http://a.test/v1": 10.2}, "one request's share"


async def test_while_one_model_loads_a_resting_one_is_told_of_once() -> None:
    loading = [CapacityError("loading", retry_after_s=1.0, context={"loading": True}) for _ in range(9)]
    played = stage({"a": PlayedCompleter(down(Fault.AUTH)), "b": PlayedCompleter(*loading, "4")})
    answer = await played.gateway.generate(ask())
    told = [(a.model, a.outcome) for a in answer.attempts]
    assert told == [("a", "error"), ("b", "error"), ("a", "skipped_open"), ("b", "ok")]


async def test_images_for_a_text_model_are_refused_in_words() -> None:
    played = stage({"a": PlayedCompleter()})
    image = Attachment(type="image_url", url="http://x/y.png")
    with pytest.raises(ValidationError, match=r"model 'a' has no vision capability") as caught:
        await played.gateway.generate(ask(attachments=(image,)))
    assert caught.value.param == "attachments"
    with pytest.raises(ValidationError, match="no usable model has the vision"):
        await played.gateway.generate(ask(None, context=Context(attachments=(image,))))


# --- streams


async def collect(played: Stage, request: GenerationRequest) -> list[GenerationChunk | GenerationResult]:
    return [item async for item in played.gateway.stream(request)]


def chunk(text: str) -> GenerationChunk:
    return GenerationChunk(text=text, tokens=1)


async def test_a_stream_ends_in_the_same_result() -> None:
    played = stage({"a": PlayedCompleter([chunk("4"), chunk("2"), "42"])})
    *chunks, last = await collect(played, ask())
    assert isinstance(last, GenerationResult)
    assert "".join(c.text for c in chunks) == last.text == "42"
    assert last.timings.first_token is not None
    assert [a.outcome for a in last.attempts] == ["ok"]


async def test_a_stream_falls_back_before_its_first_token() -> None:
    played = stage({"a": PlayedCompleter(*[[down()]] * 9), "b": PlayedCompleter([chunk("4"), "4"])})
    *chunks, last = await collect(played, ask())
    assert isinstance(last, GenerationResult) and last.model_resolved == "b"
    assert [c.text for c in chunks] == ["4"]


async def test_a_stream_never_falls_back_after_its_first_token() -> None:
    cut = ProviderError("cut", Fault.STREAM_CUT, "a", "a")
    played = stage({"a": PlayedCompleter([chunk("4"), cut]), "b": PlayedCompleter()})
    got: list[object] = []
    with pytest.raises(ProviderError) as caught:
        async for item in played.gateway.stream(ask()):
            got.append(item)
    assert caught.value.fault is Fault.STREAM_CUT and len(got) == 1
    assert not played.players["b"].calls
    attempt, usage = played.heard.attempts[-1]
    assert attempt.fault == "stream_cut"
    assert usage is not None and usage.completion_tokens == 1 and usage.estimated


async def test_a_stream_without_its_result_is_cut() -> None:
    played = stage({"a": PlayedCompleter([chunk("4")])})
    with pytest.raises(ProviderError, match="ended without its result") as caught:
        await collect(played, ask())
    assert caught.value.fault is Fault.STREAM_CUT


async def test_closing_a_stream_reaches_the_provider_and_settles_what_was_seen() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter([chunk("4"), gate])})
    async with aclosing(played.gateway.stream(ask())) as items:
        async for _ in items:
            break
    assert played.players["a"].cancelled == 1
    attempt, usage = played.heard.attempts[-1]
    assert attempt.outcome == "cancelled"
    assert usage is not None and usage.estimated and usage.completion_tokens == 1


async def test_a_consumer_who_leaves_at_the_result_is_no_cancellation() -> None:
    played = stage({"a": PlayedCompleter([chunk("4"), "4"])})
    async with aclosing(played.gateway.stream(ask())) as items:
        async for item in items:
            if isinstance(item, GenerationResult):
                break
    assert [a.outcome for a, _ in played.heard.attempts] == ["ok"]


async def test_a_silent_stream_ends_at_the_real_deadline() -> None:
    gate = asyncio.get_running_loop().create_future()
    played = stage({"a": PlayedCompleter([chunk("4"), gate])})
    with pytest.raises(ProviderError) as caught:
        await collect(played, ask(deadline_s=0.06))
    assert caught.value.fault is Fault.TIMEOUT
    assert played.players["a"].cancelled == 1


def misfit(key: str) -> CapacityError:
    error = CapacityError(f"model {key!r} cannot be loaded here: it asks for 1 GPU(s), the cluster has 0")
    error.retryable = False
    return error


async def test_a_model_that_never_fits_is_replaced_or_else_named() -> None:
    played = stage({"a": PlayedCompleter(misfit("a")), "b": PlayedCompleter("4")})
    answer = await played.gateway.generate(ask())
    assert answer.model_resolved == "b" and answer.attempts[0].message == misfit("a").message
    alone = stage({"a": PlayedCompleter(misfit("a")), "b": PlayedCompleter(misfit("b"))})
    with pytest.raises(CapacityError, match="'a' cannot be loaded here: it asks for 1 GPU") as caught:
        await alone.gateway.generate(ask())
    assert not caught.value.retryable and caught.value.code == "capacity"
    assert len(caught.value.context["attempts"]) == 2
