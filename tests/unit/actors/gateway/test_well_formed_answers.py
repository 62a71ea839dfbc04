"""Whatever an engine says, what comes out of the gateway can be written down."""

from __future__ import annotations

from registries.contracts.generation import GenerationChunk, GenerationRequest, GenerationResult
from tests.unit.actors.gateway.played import PlayedCompleter, stage

ASK = GenerationRequest(prompt="What is 2 + 2?", model_key="a")


async def test_a_lone_half_of_an_emoji_in_a_whole_answer() -> None:
    answer = await stage({"a": PlayedCompleter("4 \ud83d\ude00 \ud83d")}).gateway.generate(ASK)
    assert answer.text == "4 \U0001f600 \ufffd"
    assert GenerationResult.model_validate_json(answer.model_dump_json()).text == answer.text


async def test_an_emoji_split_over_two_chunks_and_a_half_at_the_end() -> None:
    chunks = [GenerationChunk(text=text, tokens=1) for text in ("4 \ud83d", "\ude00", " \ud83d")]
    played = stage({"a": PlayedCompleter([*chunks, "4 \ud83d\ude00 \ud83d"])})
    *shown, last = [item async for item in played.gateway.stream(ASK)]
    assert isinstance(last, GenerationResult) and last.text == "4 \U0001f600 \ufffd"
    assert "".join(chunk.text for chunk in shown if isinstance(chunk, GenerationChunk)) == last.text
    assert sum(chunk.tokens for chunk in shown if isinstance(chunk, GenerationChunk)) == 3
    for chunk in shown:
        chunk.model_dump_json()
