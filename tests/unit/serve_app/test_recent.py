from __future__ import annotations

import asyncio

import pytest

from serve_app.recent import Recent


async def test_one_question_serves_everybody_for_a_while() -> None:
    now, asked = 0.0, 0

    async def learn() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    recent = Recent(learn, 1.0, lambda: now)
    assert await asyncio.gather(*(recent.get() for _ in range(5))) == [1] * 5
    now = 0.9
    assert await recent.get() == 1
    now = 1.9
    assert await recent.get() == 2


async def test_errors_are_not_kept() -> None:
    answers = iter([ValueError("away"), None])

    async def learn() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "here"

    recent = Recent(learn, 1.0, lambda: 0.0)
    with pytest.raises(ValueError, match="away"):
        await recent.get()
    assert await recent.get() == "here"
