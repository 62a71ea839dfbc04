"""How long events wait for company."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.running.event_patience import (
    BEGIN_PATIENCE_S,
    BUSY_BEGIN_PATIENCE_S,
    LINGER_S,
    MAX_LINGER_S,
    begin_patience_s,
    token_linger_s,
)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_tokens_wait_longer_the_more_runs_there_are(fewer: int, more: int) -> None:
    fewer, more = sorted((fewer, more))
    assert LINGER_S <= token_linger_s(fewer) <= token_linger_s(more) <= MAX_LINGER_S


def test_beginnings_are_told_soon_unless_the_process_is_busy() -> None:
    assert begin_patience_s(0.0) == begin_patience_s(0.25) == BEGIN_PATIENCE_S
    assert begin_patience_s(0.5) == begin_patience_s(1.7) == BUSY_BEGIN_PATIENCE_S
