from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.coalescing import MAX_INTERVAL_S, StreamItem, StreamPace, coalesce, interval_for, merged
from registries.contracts.engine import EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import GenerationChunk

RESULT = EngineResult("abc", "stop", 1, 3)


async def speak(
    *items: StreamItem, pause_s: float = 0.0, log: list[str] | None = None
) -> AsyncGenerator[StreamItem, None]:
    try:
        for item in items:
            yield item
            await asyncio.sleep(pause_s)
    finally:
        if log is not None:
            log.append("closed")


def chunk(text: str) -> GenerationChunk:
    return GenerationChunk(text=text)


@given(st.lists(st.text(max_size=5), max_size=8), st.booleans())
def test_merging_keeps_text_tokens_and_the_result(texts: list[str], ended: bool) -> None:
    items: list[StreamItem] = [chunk(text) for text in texts]
    out = merged(items + ([RESULT] if ended else []))
    chunks = [item for item in out if isinstance(item, GenerationChunk)]
    assert len(chunks) <= 1
    assert "".join(item.text for item in chunks) == "".join(texts)
    assert sum(item.tokens for item in chunks) == len(texts)
    assert (out[-1:] == [RESULT]) is ended


async def test_first_item_and_last_item_do_not_wait() -> None:
    source = speak(chunk("a"), chunk("b"), chunk("c"), RESULT)
    lists = [items async for items in coalesce(source, lambda: 60.0)]
    text = "".join(item.text for items in lists for item in items if isinstance(item, GenerationChunk))
    assert text == "abc"
    assert lists[-1][-1] == RESULT
    assert len(lists) <= 2


async def test_slow_tokens_come_one_by_one() -> None:
    lists = [items async for items in coalesce(speak(chunk("a"), chunk("b"), pause_s=0.02), lambda: 0.001)]
    assert [len(items) for items in lists] == [1, 1]


async def test_closing_early_closes_the_source() -> None:
    log: list[str] = []
    lists = coalesce(speak(chunk("a"), chunk("b"), pause_s=30, log=log), lambda: 0.001)
    async for _ in lists:
        break
    await lists.aclose()
    assert log == ["closed"]


async def test_an_error_comes_after_what_was_said() -> None:
    async def failing() -> AsyncGenerator[StreamItem, None]:
        yield chunk("half")
        raise ProviderError("cut", Fault.STREAM_CUT)

    heard = []
    with pytest.raises(ProviderError):
        async for items in coalesce(failing(), lambda: 0.001):
            heard.extend(items)
    assert heard == [chunk("half")]


@given(st.integers(0, 10_000))
def test_interval_grows_with_streams_and_is_bounded(streams: int) -> None:
    assert interval_for(streams) <= interval_for(streams + 1) <= MAX_INTERVAL_S


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 100)), max_size=10), st.integers(0, 500))
def test_pace_is_at_least_one_token(observations: list[tuple[int, float]], streams: int) -> None:
    pace = StreamPace()
    for tokens, seconds in observations:
        pace.observe(tokens, seconds)
    assert pace.tokens_per_item(streams) >= 1


def test_fast_streams_give_bigger_items() -> None:
    slow, fast = StreamPace(), StreamPace()
    slow.observe(20, 1.0)
    fast.observe(2000, 1.0)
    assert slow.tokens_per_item(1) == 1
    assert fast.tokens_per_item(1) > 10
