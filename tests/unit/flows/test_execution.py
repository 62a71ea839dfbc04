"""Flows run from order to result on fake ports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from registries.contracts.errors import BudgetError, Fault, InternalError, ProviderError
from registries.contracts.generation import GenerationRequest, Message
from registries.contracts.runs import NodeResult, RunResult
from tests.passing_time import skip_time
from tests.unit.flows.fakes import PACKAGE, QUESTION, World, arithmetic, catalog_with, flow_of, order

GRAPHS = FlowGraphs(PACKAGE)


async def run(world: World, flow: str = "challenge", deadline_s: float = 30.0, **request: Any) -> RunResult:
    graphs = GRAPHS if world.catalog is PACKAGE else FlowGraphs(world.catalog)
    spec = world.catalog.flows.get(flow)
    return await execute_flow(order(flow, deadline_s, **request), spec, graphs, world.ports())


def visits(result: RunResult) -> list[tuple[str, int, str]]:
    return [(node.id, node.visit, node.status) for node in result.nodes]


def node(result: RunResult, name: str) -> NodeResult:
    return next(found for found in result.nodes if found.id == name)


async def test_challenge_mends_the_answer_and_stops_when_no_fault_is_found() -> None:
    world = World()
    result = await run(world)
    assert result.status == "completed"
    assert result.answer == "48 + 37 = 85"
    assert visits(result) == [
        ("creator", 1, "completed"),
        ("challenger", 1, "completed"),
        ("refiner", 1, "completed"),
        ("challenger", 2, "completed"),
    ]
    assert result.rounds == 2
    assert result.improvement.model_dump() == {
        "first_score": 0.0,
        "final_score": 1.0,
        "delta": 1.0,
        "method": "checker",
        "reason": None,
    }
    assert [n.model_resolved for n in result.nodes] == ["nano-s", "nano-m", "nano-m", "nano-m"]
    assert result.usage.completion_tokens == sum(n.usage.completion_tokens for n in result.nodes) > 0


async def test_later_rounds_criticise_the_latest_answer() -> None:
    world = World()
    await run(world)
    assert world.generator.prompts() == [
        QUESTION,
        f"Question: {QUESTION} Answer: 48 + 37 = 84 Check it.",
        f"Question: {QUESTION} Answer: 48 + 37 = 84 Critique: I get 85. Wrong. Fix it.",
        f"Question: {QUESTION} Answer: 48 + 37 = 85 Check it.",
    ]


async def test_challenge_stops_at_once_when_the_first_answer_has_no_fault() -> None:
    result = await run(World(), models={"creator": "nano-m"})
    assert visits(result) == [("creator", 1, "completed"), ("challenger", 1, "completed")]
    assert (result.answer, result.rounds, result.improvement.delta) == ("48 + 37 = 85", 1, 0.0)


@pytest.mark.parametrize("rounds", [1, 3, 20])
async def test_rounds_can_be_asked_for(rounds: int) -> None:
    def never_content(request: GenerationRequest) -> str:
        return "I get 1. Wrong." if request.prompt.endswith("Check it.") else arithmetic(request)

    result = await run(World(never_content), input={"rounds": rounds})
    assert result.rounds == rounds
    assert len(result.nodes) == 1 + 2 * rounds


async def test_events_tell_the_run_in_order() -> None:
    world = World()
    result = await run(world)
    assert world.events.names() == [
        "node.started creator",
        "node.completed creator",
        "round.started challenger",
        "node.started challenger",
        "node.completed challenger",
        "node.started refiner",
        "node.completed refiner",
        "round.started challenger",
        "node.started challenger",
        "node.completed challenger",
    ]
    assert world.events.tokens("creator") == node(result, "creator").text
    told = [NodeResult.model_validate(d) for type, _, d, _ in world.events.seen if type == "node.completed"]
    assert tuple(told) == result.nodes


async def test_whole_and_streamed_give_the_same_result() -> None:
    streamed, whole = World(), World()
    whole.stream_tokens = False
    first, second = await run(streamed), await run(whole)
    assert first == second
    assert (streamed.generator.streamed, whole.generator.streamed) == (4, 0)
    assert "node.token creator" not in whole.events.names(tokens=True)


async def test_multi_perspective_runs_experts_at_the_same_time_and_elsewhere() -> None:
    started: set[str] = set()
    all_started = asyncio.Event()

    async def meet(request: GenerationRequest) -> None:
        if not request.prompt.endswith("Merge them."):
            started.add(request.metadata["node"])
            if len(started) == 3:
                all_started.set()
            await asyncio.wait_for(all_started.wait(), 5)

    world = World(pause=meet)
    result = await run(world, "multi_perspective")
    assert result.status == "completed"
    assert result.answer == "48 + 37 = 85"
    assert sorted(payload["node"]["id"] for payload in world.placement.payloads) == [
        "performance",
        "security",
        "ux",
    ]
    assert world.generator.prompts()[-1] == (
        f"Question: {QUESTION} Answers: 48 + 37 = 85 | 48 + 37 = 84 | 48 + 37 = 85 Merge them."
    )
    assert (result.rounds, result.nodes[-1].data["failed"]) == (0, [])


@pytest.mark.parametrize("error", [ProviderError("refused", Fault.REFUSED, "p", "m"), ZeroDivisionError()])
async def test_a_failing_expert_costs_neither_its_siblings_nor_the_answer(error: Exception) -> None:
    def one_fails(request: GenerationRequest) -> str | Exception:
        return error if request.metadata["node"] == "security" else arithmetic(request)

    result = await run(World(one_fails), "multi_perspective")
    assert result.status == "completed"
    failed = node(result, "security")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == ("provider_error" if isinstance(error, ProviderError) else "internal")
    assert "Traceback" not in result.model_dump_json()
    merged = node(result, "synthesizer")
    assert merged.data["failed"] == ["security"]
    assert "degraded" in merged.data["signals"]
    assert result.improvement.reason == "the flow has no first answer to compare with"


@pytest.mark.parametrize("error", [ProviderError("lost", Fault.STREAM_CUT), RuntimeError("worker died")])
async def test_a_lost_worker_is_a_failed_expert(error: Exception) -> None:
    world = World()
    world.placement.fail_with["ux"] = error
    result = await run(world, "multi_perspective")
    assert result.status == "completed"
    assert node(result, "ux").status == "failed"
    assert "worker died" not in result.model_dump_json()


async def test_no_expert_at_all_fails_the_run_with_all_their_errors_shown() -> None:
    def all_fail(request: GenerationRequest) -> Exception:
        return ProviderError("refused", Fault.REFUSED)

    result = await run(World(all_fail), "multi_perspective")
    assert result.status == "failed"
    assert result.error is not None
    assert "security, performance, ux" in result.error.message
    assert len(result.nodes) == 4


async def test_no_expert_in_time_is_no_fault_of_a_provider() -> None:
    def all_late(request: GenerationRequest) -> Exception:
        return BudgetError("the deadline of 0.05 s passed before an answer", "deadline_s")

    error = (await run(World(all_late), "multi_perspective")).error
    assert error is not None
    assert (error.code, error.param, error.retryable) == ("budget_exceeded", "deadline_s", False)
    assert "security, performance, ux" in error.message and "0.05 s" in error.message


async def test_a_node_the_flow_cannot_do_without_fails_the_run_and_keeps_what_was_done() -> None:
    def no_critique(request: GenerationRequest) -> str | Exception:
        if request.prompt.endswith("Check it."):
            return ProviderError("slow", Fault.TIMEOUT, "p", "m", context={"attempts": [ATTEMPT]})
        return arithmetic(request)

    result = await run(World(no_critique))
    assert result.status == "failed"
    assert result.answer == "48 + 37 = 84"
    assert visits(result) == [("creator", 1, "completed"), ("challenger", 1, "failed")]
    assert result.error is not None
    assert (result.error.code, result.error.fault, result.error.retryable) == (
        "provider_error",
        "timeout",
        True,
    )
    assert [attempt.outcome for attempt in result.nodes[-1].attempts] == ["error"]
    assert result.improvement.reason == "the run did not complete"


ATTEMPT = {"model": "nano-m", "provider": "local", "outcome": "error", "fault": "timeout"}


async def test_linear_goes_from_analysis_to_summary() -> None:
    world = World()
    result = await run(world, "linear")
    assert visits(result) == [
        ("analyzer", 1, "completed"),
        ("monitor", 1, "skipped"),
        ("execution", 1, "completed"),
        ("validator", 1, "completed"),
        ("history", 1, "skipped"),
        ("summary", 1, "completed"),
    ]
    assert node(result, "analyzer").data["task_type"] == "arithmetic"
    assert world.generator.requests[0].task_type == "arithmetic"
    assert "85" in node(result, "summary").data["final_summary"]
    assert node(result, "summary").data["metrics"]["models"] == ["nano-m"]
    assert result.answer == "48 + 37 = 85"


async def test_linear_tries_again_below_the_bar_with_backoff_and_another_temperature() -> None:
    texts = iter(["", "no idea", "48 + 37 = 85"])
    world = World(lambda request: next(texts))
    result = await run(world, "linear", seed=1)
    assert [n.data["score"] for n in result.nodes if n.id == "validator"] == pytest.approx([0.0, 0.2, 1.0])
    assert [r.temperature for r in world.generator.requests] == [None, 0.7, 0.7]
    assert len({r.seed for r in world.generator.requests}) == 3
    assert len(world.clock.slept) == 2
    assert all(1.0 <= pause <= 1.1 for pause in world.clock.slept)
    assert result.answer == "48 + 37 = 85"


async def test_linear_gives_up_after_its_rounds() -> None:
    result = await run(World(lambda request: "no idea"), "linear")
    assert result.status == "completed"
    assert result.rounds == 3
    assert "Score of the form: 0.20" in node(result, "summary").text


async def test_linear_reads_a_conversation_that_bears_on_the_question() -> None:
    world = World()
    world.history.turns = [Message(role="user", content="I like 37"), Message(role="user", content="hm")]
    result = await run(world, "linear", conversation_id="c1")
    assert node(result, "history").text == "user: I like 37"
    assert world.history.reads == [("c1", 20)]


async def test_roles_can_be_given_other_models_and_tiers() -> None:
    result = await run(
        World(), models={"refiner": "nano-s", "creator": "tier:strong", "challenger": "nano-s"}
    )
    assert [n.model_resolved for n in result.nodes] == ["nano-m", "nano-s"]


@pytest.mark.parametrize(
    ("request_", "param", "words"),
    [
        ({"models": {"judge": "nano-m"}}, "models.judge", "roles: creator, challenger, refiner"),
        ({"models": {"creator": "nano"}}, "models.creator", "Did you mean 'nano-"),
        ({"models": {"creator": "tier:huge"}}, "models.creator", "unknown tier 'huge'"),
        ({"models": {"creator": "gpt-5.6"}}, "models.creator", "it needs OPENAI_API_KEY"),
        ({"strategy": "fats"}, "strategy", "Did you mean 'fast'"),
        ({"flow_version": "0000"}, "flow_version", "is not the version"),
        ({"input": {"rounds": 0}}, "input.rounds", "a whole number from 1 to 20"),
        ({"input": {"rounds": True}}, "input.rounds", "a whole number from 1 to 20"),
        ({"input": {"question": "x"}}, "input.question", "allowed: prompt, rounds"),
        ({"prompt": "", "input": {"rounds": 2}}, "input.prompt", "is required"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    request_: dict[str, Any], param: str, words: str
) -> None:
    world = World()
    result = await run(world, **request_)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.param) == ("invalid_request", param)
    assert words in result.error.message
    assert world.events.seen == []


async def test_an_order_for_another_flow_is_refused() -> None:
    result = await execute_flow(order("linear"), PACKAGE.flows.get("challenge"), GRAPHS, World().ports())
    assert result.error is not None
    assert result.error.param == "flow_type"


async def test_strategy_tokens_and_identity_reach_every_call() -> None:
    world = World()
    await run(world, strategy="fast", max_tokens=8, metadata={"team": "a", "run_id": "forged"})
    for request in world.generator.requests:
        assert (request.strategy, request.max_tokens) == ("fast", 8)
        assert request.metadata["team"] == "a"
        assert request.metadata["run_id"] == "run-1"
    assert [r.request_id for r in world.generator.requests][:2] == ["run-1:creator:1", "run-1:challenger:1"]


async def test_the_prompts_own_token_limit_holds_below_the_requests() -> None:
    world = World()
    await run(world, max_tokens=500)
    assert {request.max_tokens for request in world.generator.requests} == {32}


async def test_seeds_differ_by_visit_and_repeat_by_run() -> None:
    first, second, other = World(), World(), World()
    await run(first, seed=5)
    await run(second, seed=5)
    await run(other, seed=6)
    seeds = [request.seed for request in first.generator.requests]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [request.seed for request in second.generator.requests]
    assert seeds != [request.seed for request in other.generator.requests]


async def test_without_a_seed_none_is_made_up() -> None:
    world = World()
    await run(world)
    assert {request.seed for request in world.generator.requests} == {None}


def endless(seconds: float) -> Callable[[GenerationRequest], Awaitable[None]]:
    """A call that never ends; so much time passes once it is under way."""

    async def hang(request: GenerationRequest) -> None:
        skip_time(seconds)
        await asyncio.Event().wait()

    return hang


async def test_the_deadline_ends_the_run_and_aborts_the_call() -> None:
    world = World(pause=endless(30))
    result = await run(world, deadline_s=30)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.param) == ("budget_exceeded", "deadline_s")
    assert world.generator.aborted == ["run-1:creator:1"]


async def test_calls_get_the_time_that_remains() -> None:
    world = World()
    world.clock.tick_s = 0.5
    await run(world, deadline_s=100)
    remaining = [request.deadline_s or 0 for request in world.generator.requests]
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[0] < 100


async def test_a_node_has_a_timeout_of_its_own() -> None:
    flow = flow_of(nodes=[{"id": "one", "timeout_s": 10}])
    world = World(catalog=catalog_with(flow), pause=endless(10))
    result = await run(world, "trial")
    assert result.error is not None
    assert result.error.param == "nodes.one.timeout_s"
    assert world.generator.aborted == ["run-1:one:1"]


@pytest.mark.parametrize("flow", ["challenge", "multi_perspective"])
async def test_cancelling_aborts_every_call_and_waits_for_it(flow: str) -> None:
    entered = asyncio.Event()
    wanted = 3 if flow == "multi_perspective" else 1

    async def hang(request: GenerationRequest) -> None:
        if len(world.generator.requests) == wanted:
            entered.set()
        await asyncio.Event().wait()

    world = World(pause=hang)
    task = asyncio.ensure_future(run(world, flow))
    await asyncio.wait_for(entered.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(world.generator.aborted) == wanted


async def test_a_declared_retry_repeats_only_what_may_succeed() -> None:
    flow = flow_of(nodes=[{"id": "one", "retry": {"max_retries": 2, "backoff_factor": 1}}])
    answers: list[str | Exception] = [
        ProviderError("a", Fault.TIMEOUT),
        ProviderError("b", Fault.TIMEOUT),
        "8",
    ]
    world = World(lambda request: answers.pop(0), catalog=catalog_with(flow))
    result = await run(world, "trial")
    assert (result.status, result.answer) == ("completed", "8")
    assert [attempt for *_, attempt in world.events.seen if _[0] == "node.started"] == [1, 2, 3]
    assert world.clock.slept == [1.0, 1.0]
    hopeless = World(lambda request: ProviderError("c", Fault.AUTH), catalog=world.catalog)
    assert (await run(hopeless, "trial")).status == "failed"
    assert len(hopeless.generator.requests) == 1


async def test_money_that_is_used_up_stops_the_next_node() -> None:
    world = World(cost_micro_usd=10)
    result = await run(world, budget_usd=0.000015)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.param) == ("budget_exceeded", "budget_usd")
    assert [n.id for n in result.nodes] == ["creator", "challenger"]
    assert (await run(World(), budget_usd=0)).status == "completed"


async def test_a_question_out_of_scope_is_noticed() -> None:
    result = await run(World(lambda request: "42"), prompt="What is love?")
    (notice,) = result.notices
    assert "outside what nano-m and nano-s can do" in notice
    assert (await run(World())).notices == ()


async def test_a_fallback_to_a_narrow_model_is_noticed() -> None:
    catalog = catalog_with(flow_of(nodes=[{"id": "one", "model": "gpt-5.6"}]))
    result = await run(World(lambda r: "42", catalog=catalog, answered_by="nano-m"), "trial", prompt="Why?")
    assert result.notices == (
        "one: gpt-5.6 did not answer; nano-m did, which is not made for such questions.",
    )


async def test_without_a_checker_or_a_judge_the_improvement_is_unknown_and_says_why() -> None:
    result = await run(World(lambda request: "42"), prompt="What is love?")
    assert result.improvement.delta is None
    assert result.improvement.reason == (
        "no checker fits this question, and no enabled model has the judge capability"
    )


async def test_a_target_makes_a_checker() -> None:
    result = await run(World(), target="84")
    assert (result.improvement.method, result.improvement.delta) == ("checker", -1.0)


async def test_no_model_at_all_is_a_capacity_error_of_the_node() -> None:
    flow = flow_of(nodes=[{"id": "one", "model": None}])
    result = await run(World(catalog=catalog_with(flow), chosen=None), "trial")
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("capacity", True)


async def test_a_flow_that_cannot_run_is_refused_with_its_problems() -> None:
    flow = flow_of(nodes=[{"id": "one", "kind": "dream"}])
    result = await run(World(catalog=catalog_with(flow)), "trial")
    assert result.error is not None
    assert "unknown node kind 'dream'" in result.error.message


async def test_a_bug_in_a_port_fails_the_run_without_its_words() -> None:
    class Broken(World):
        def ports(self) -> Any:
            ports = super().ports()
            object.__setattr__(ports, "events", self)
            return ports

        async def emit(self, *_: object) -> None:
            raise RuntimeError("secret words")

    result = await run(Broken())
    assert result.error is not None
    assert result.error.code == InternalError.code
    assert "secret" not in result.model_dump_json()


async def test_a_saver_gets_json_states_after_every_step() -> None:
    saver, world = InMemorySaver(), World()
    ports, flow = world.ports(), PACKAGE.flows.get("challenge")
    result = await execute_flow(order(), flow, GRAPHS, ports, checkpointer=saver)
    states = [item async for item in saver.alist({"configurable": {"thread_id": "run-1"}})]
    assert len(states) == 2 + len(result.nodes)
    values = states[0].checkpoint["channel_values"]
    assert json.loads(json.dumps(values["results"])) == [n.model_dump(mode="json") for n in result.nodes]
    assert values["outputs"] == {
        "creator": "48 + 37 = 84",
        "challenger": "I get 85. Right.",
        "refiner": "48 + 37 = 85",
    }


async def test_failures_are_remembered_with_their_trace_for_operators_only() -> None:
    def one_fails(request: GenerationRequest) -> str | Exception:
        return ValueError("inner words") if request.metadata["node"] == "one" else "8"

    flow = flow_of(
        nodes=[{"id": "one", "on_error": "continue"}, {"id": "two"}],
        edges=[{"source": "one", "target": "two"}],
    )
    saver, world = InMemorySaver(), World(one_fails, catalog=catalog_with(flow))
    result = await execute_flow(order("trial"), flow, FlowGraphs(world.catalog), world.ports(), saver)
    last = await anext(saver.alist({"configurable": {"thread_id": "run-1"}}))
    (failure,) = last.checkpoint["channel_values"]["error_history"]
    assert (failure["error_type"], failure["node_name"], failure["retry_count"]) == ("ValueError", "one", 0)
    assert "inner words" in failure["stack_trace"]
    assert last.checkpoint["channel_values"]["recovery_strategy"] == "continue"
    assert result.status == "completed"
    assert "inner words" not in result.model_dump_json()
