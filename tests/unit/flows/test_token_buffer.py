"""Tokens are gathered by time and size, and none is lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flows.token_buffer import FLUSH_CHARS, FLUSH_S, TokenBuffer
from tests.unit.flows.fakes import FakeClock


@given(st.lists(st.tuples(st.text(max_size=700), st.floats(0, 0.1))))
def test_all_text_comes_out_in_order_and_not_too_often(chunks: list[tuple[str, float]]) -> None:
    clock = FakeClock()
    buffer = TokenBuffer(clock)
    sent: list[tuple[float, str]] = []
    for text, pause in chunks:
        clock.now += pause
        if piece := buffer.add(text):
            sent.append((clock.now, piece))
    rest = buffer.rest()
    assert "".join(piece for _, piece in sent) + rest == "".join(text for text, _ in chunks)
    for (earlier, _), (later, piece) in pairwise(sent):
        assert later - earlier >= FLUSH_S or len(piece) >= FLUSH_CHARS


def test_the_first_text_is_not_held_back() -> None:
    buffer = TokenBuffer(FakeClock())
    assert buffer.add("") == ""
    assert buffer.add("a") == "a"
    assert buffer.add("b") == ""
    assert buffer.rest() == "b"
    assert buffer.rest() == ""
