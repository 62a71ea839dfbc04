"""One suite for every engine: what a caller may rely on, whichever engine answers."""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from actors.engines.table import ENGINE_LOADERS
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import (
    BudgetError,
    CancelledRun,
    CapacityError,
    Fault,
    ParleyError,
    ProviderError,
    ValidationError,
)
from registries.contracts.generation import Attachment, GenerationChunk, Message
from tests.conformance.engine_cases import CASE_NAMES, LONG_WINDOW, EngineCase, open_case
from tests.machine_pace import paced

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180), pytest.mark.heavy]
HERE = [name for name in CASE_NAMES if name != "vllm" or importlib.util.find_spec("vllm")]
SLOT_FREE_WITHIN_S = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=HERE)
async def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[EngineCase, None]:
    folder: Path = tmp_path_factory.mktemp(f"engine-{request.param}")
    async with open_case(request.param, folder) as opened:
        yield opened


async def streamed(
    case: EngineCase, prompt: str, **options: object
) -> tuple[list[GenerationChunk], EngineResult]:
    chunks: list[GenerationChunk] = []
    results: list[EngineResult] = []
    async for item in case.engine.stream(case.call(prompt, **options)):
        assert not results, "nothing comes after the result"
        (chunks if isinstance(item, GenerationChunk) else results).append(item)  # type: ignore[arg-type]
    assert len(results) == 1
    return chunks, results[0]


async def outcome_of(case: EngineCase, call: EngineCall, stream: bool) -> EngineResult:
    if not stream:
        return await case.engine.complete(call)
    results = [item async for item in case.engine.stream(call) if isinstance(item, EngineResult)]
    return results[0]


async def until(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + paced(within_s)
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


async def test_every_engine_of_the_table_has_a_case() -> None:
    assert set(CASE_NAMES) == set(ENGINE_LOADERS)


async def test_answer_has_text_and_usage(case: EngineCase) -> None:
    result = await case.engine.complete(case.call("tell me something"))
    assert result.text
    assert result.finish_reason in ("stop", "length")
    assert result.prompt_tokens > 0
    assert 0 < result.completion_tokens <= 16


async def test_result_survives_pickling(case: EngineCase) -> None:
    call = case.call("pickle me")
    result = await case.engine.complete(pickle.loads(pickle.dumps(call)))
    assert pickle.loads(pickle.dumps(result)) == result


async def test_stream_equals_whole(case: EngineCase) -> None:
    whole = await case.engine.complete(case.call("the same twice"))
    chunks, result = await streamed(case, "the same twice")
    assert "".join(chunk.text for chunk in chunks) == result.text == whole.text
    assert (result.finish_reason, result.completion_tokens) == (whole.finish_reason, whole.completion_tokens)
    assert result.prompt_tokens == whole.prompt_tokens
    assert result.first_token_s is not None
    assert result.first_token_s >= 0


async def test_concurrent_calls_keep_their_answers(case: EngineCase) -> None:
    prompts = [f"question {number} about things" for number in range(8)]
    alone = [(await case.engine.complete(case.call(prompt, max_tokens=8))).text for prompt in prompts]
    calls = [case.call(prompt, f"c{number}", max_tokens=8) for number, prompt in enumerate(prompts)]
    together = await asyncio.gather(*(case.engine.complete(call) for call in calls))
    assert [result.text for result in together] == alone


async def test_max_tokens_is_kept_and_told(case: EngineCase) -> None:
    result = await case.engine.complete(case.call("one two three four five six seven", max_tokens=3))
    assert result.completion_tokens <= 3
    assert result.finish_reason in ("length", "stop")
    if case.ends_by_itself:
        assert (result.text, result.finish_reason) == ("one two three", "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string_ends_the_answer_and_is_not_shown(case: EngineCase, stream: bool) -> None:
    full = (await case.engine.complete(case.call("alpha beta gamma delta", max_tokens=24))).text
    stop = full[len(full) // 2 : len(full) // 2 + 2]
    if stream:
        _, result = await streamed(case, "alpha beta gamma delta", max_tokens=24, stop=(stop,))
    else:
        result = await case.engine.complete(case.call("alpha beta gamma delta", max_tokens=24, stop=(stop,)))
    assert result.text == full[: full.index(stop)]
    assert result.finish_reason == "stop"


async def test_a_seed_repeats_the_answer(case: EngineCase) -> None:
    options = {"temperature": 0.9, "max_tokens": 12}
    call = case.call("seeded", seed=11, **options)
    first, second = await case.engine.complete(call), await case.engine.complete(call)
    others = [await case.engine.complete(case.call("seeded", seed=seed, **options)) for seed in (1, 2, 3)]
    assert first.text == second.text
    assert len({other.text for other in others}) > 1


async def test_closing_the_stream_frees_the_slot(case: EngineCase) -> None:
    async with aclosing(case.engine.stream(case.call(case.slow, max_tokens=LONG_WINDOW))) as items:  # type: ignore[type-var]
        async for _ in items:
            break
    assert await until(lambda: case.busy() == 0, SLOT_FREE_WITHIN_S)


async def test_cancelling_the_caller_frees_the_slot(case: EngineCase) -> None:
    task = asyncio.create_task(
        case.engine.complete(case.call("fail hang" if case.faults else case.slow, max_tokens=LONG_WINDOW))
    )
    await until(lambda: case.busy() == 1 or task.done(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(lambda: case.busy() == 0, SLOT_FREE_WITHIN_S)


async def test_abort_by_id_frees_the_slot_and_ends_the_call(case: EngineCase) -> None:
    call = case.call("fail hang" if case.faults else case.slow, "to-abort", max_tokens=LONG_WINDOW)
    task = asyncio.create_task(case.engine.complete(call))
    await until(lambda: case.busy() == 1 or task.done(), 5)
    await case.engine.abort("to-abort")
    with pytest.raises(CancelledRun):
        await task
    assert await until(lambda: case.busy() == 0, SLOT_FREE_WITHIN_S)
    await case.engine.abort("to-abort")
    await case.engine.abort("never seen")


@pytest.mark.parametrize("stream", [False, True])
async def test_deadline_ends_the_call_and_frees_the_slot(case: EngineCase, stream: bool) -> None:
    deadline_s = 0.3 if case.faults else 0.005
    call = {"max_tokens": LONG_WINDOW, "deadline_s": deadline_s}
    started = time.monotonic()
    with pytest.raises(BudgetError) as caught:
        if stream:
            await streamed(case, case.slow, **call)
        else:
            await case.engine.complete(case.call(case.slow, **call))
    assert time.monotonic() - started < deadline_s + paced(1)
    assert caught.value.param == "deadline_s"
    assert await until(lambda: case.busy() == 0, SLOT_FREE_WITHIN_S)


async def test_prompt_beyond_the_context_window(case: EngineCase) -> None:
    with pytest.raises(ProviderError) as caught:
        await case.engine.complete(case.call("many words " * 1200))
    assert caught.value.fault is Fault.CONTEXT_WINDOW
    assert caught.value.param == "prompt"
    assert not caught.value.retryable
    assert any(character.isdigit() for character in caught.value.message)


async def test_an_image_for_a_text_model(case: EngineCase) -> None:
    if case.faults:
        pytest.skip("remote models decide for themselves; see the protocol's unit tests")
    picture = Attachment(type="image_url", url="https://example.org/cat.png")
    with pytest.raises(ValidationError) as caught:
        await case.engine.complete(case.call("what is this", attachments=(picture,)))
    assert caught.value.param == "attachments"


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_that_the_chat_template_refuses_are_the_callers_fault(
    case: EngineCase, stream: bool
) -> None:
    if case.faults:  # no template here; a server's refusal is a 400, see the protocol's unit tests
        return
    call = case.call("hello")
    call = replace(call, messages=(*call.messages, Message(role="tool", content="4")))
    with pytest.raises(ValidationError, match="no tools here") as caught:
        await outcome_of(case, call, stream)
    assert caught.value.param == "messages"
    assert await until(lambda: case.busy() == 0, SLOT_FREE_WITHIN_S)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": ("",)},
        {"response_format": {"type": "grammar"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no such type"}}}},
    ],
)
async def test_what_an_engine_cannot_take_is_refused_as_the_callers_fault(
    case: EngineCase, wrong: dict[str, object], stream: bool
) -> None:
    with suppress(ValidationError):  # or taken: what one engine refuses another need not
        await outcome_of(case, case.call("hello", **wrong), stream)
    assert (await case.engine.complete(case.call("hello"))).text, "and it goes on"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ("fail rate", Fault.RATE_LIMITED),
        ("fail auth", Fault.AUTH),
        ("fail bad", Fault.BAD_RESPONSE),
        ("fail policy", Fault.CONTENT_POLICY),
        ("fail missing", Fault.NOT_SERVED),
        ("fail refused", Fault.REFUSED),
        ("fail cut", Fault.STREAM_CUT),
    ],
)
async def test_faults_are_classed(case: EngineCase, prompt: str, fault: Fault, stream: bool) -> None:
    if not case.faults:
        pytest.skip("an engine in this process has no provider whose faults could be played")
    with pytest.raises(ProviderError) as caught:
        if stream:
            await streamed(case, prompt)
        else:
            await case.engine.complete(case.call(prompt))
    assert caught.value.fault is fault
    assert caught.value.provider
    assert pickle.loads(pickle.dumps(caught.value)).fault is fault
    if fault is Fault.RATE_LIMITED:
        assert caught.value.retry_after_s == 7


async def test_nothing_is_retried_inside(case: EngineCase) -> None:
    if not case.faults:
        pytest.skip("an engine in this process has no provider whose faults could be played")
    for _ in range(2):
        with pytest.raises(ProviderError):
            await case.engine.complete(case.call("fail twice"))
    assert (await case.engine.complete(case.call("fail twice"))).text == "good"


async def test_a_conversation_is_taken_whole(case: EngineCase) -> None:
    short = await case.engine.complete(case.call("and now?"))
    call = case.call("and now?")
    longer = (Message(role="user", content="hello"), Message(role="assistant", content="hi"), *call.messages)
    result = await case.engine.complete(replace(call, messages=longer))
    assert result.prompt_tokens > short.prompt_tokens


async def test_healthy_and_idle(case: EngineCase) -> None:
    await case.engine.check_health()
    assert await until(lambda: case.engine.stats().running == 0, SLOT_FREE_WITHIN_S)
    assert case.engine.stats().waiting == 0


async def test_z_drain_refuses_new_calls_and_lets_the_running_end(case: EngineCase) -> None:
    running = asyncio.create_task(case.engine.complete(case.call(case.slow, max_tokens=8)))
    await until(lambda: case.busy() == 1 or running.done(), 5)
    drained = asyncio.create_task(case.engine.drain(20))
    await asyncio.sleep(0)
    with pytest.raises(CapacityError) as caught:
        await case.engine.complete(case.call("too late"))
    assert caught.value.retryable
    await drained
    assert running.done()
    assert (await running).completion_tokens == 8


async def test_zz_shutdown_twice_and_then_nothing_works(case: EngineCase) -> None:
    await case.engine.shutdown()
    await case.engine.shutdown()
    with pytest.raises(ParleyError):
        await case.engine.complete(case.call("anyone there"))
    with pytest.raises(ProviderError):
        await case.engine.check_health()
