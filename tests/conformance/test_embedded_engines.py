"""The embedded model on both local engines: well-formed answers, the same from both."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

from actors.engines.table import make_engine
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import EngineCall
from registries.contracts.generation import Message
from registries.loader import load_catalog

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(180)]
QUESTIONS = tuple(f"What is {21 + 3 * step} + {90 - 3 * step}?" for step in range(20))


async def answers(engine_name: str, home: Path) -> list[str]:
    config = RuntimeConfig(home=str(home), local_engine=engine_name)
    spec = load_catalog(config).get_model("nano-m")
    engine = make_engine(spec, config)
    await engine.start()
    try:
        calls = [
            EngineCall(
                f"q{number}", spec.location, (Message(role="user", content=question),), 24, deadline_s=60
            )
            for number, question in enumerate(QUESTIONS)
        ]
        results = await asyncio.gather(*(engine.complete(call) for call in calls))
        assert {result.finish_reason for result in results} == {"stop"}
        return [result.text for result in results]
    finally:
        await engine.shutdown()


async def test_both_engines_give_the_same_greedy_answers(tmp_path: Path) -> None:
    plain = await answers("transformers", tmp_path)
    for question, answer in zip(QUESTIONS, plain, strict=True):
        asked = question.removeprefix("What is ").removesuffix("?")
        assert re.fullmatch(re.escape(asked) + r" = \d+", answer), (question, answer)
    if importlib.util.find_spec("vllm"):
        assert await answers("vllm", tmp_path) == plain
