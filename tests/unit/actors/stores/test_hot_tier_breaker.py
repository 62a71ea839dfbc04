"""When a Redis that failed is asked again."""

from __future__ import annotations

import structlog

from actors.stores.hot_tier_breaker import FIRST_PAUSE_S, MAX_PAUSE_S, HotTierBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_failure_stops_the_asking_for_a_growing_pause() -> None:
    clock = Clock()
    breaker = HotTierBreaker("reads", clock)
    assert breaker.allows() and not breaker.is_open
    pauses = []
    for _ in range(9):
        breaker.fail(TimeoutError())
        assert breaker.is_open and not breaker.allows()
        pauses.append(breaker.wait_s)
        clock.now += breaker.wait_s
        assert breaker.allows()
        assert not breaker.allows(), "one try a pause"
    assert pauses == sorted(pauses)
    assert abs(pauses[0] - FIRST_PAUSE_S) < 1e-6 and abs(pauses[-1] - MAX_PAUSE_S) < 1e-6
    assert breaker.succeed() and breaker.allows() and not breaker.is_open
    assert not breaker.succeed()
    breaker.fail(TimeoutError())
    assert abs(breaker.wait_s - FIRST_PAUSE_S) < 1e-6


def test_it_logs_once_per_change_and_never_what_redis_quotes() -> None:
    clock = Clock()
    breaker = HotTierBreaker("writes", clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            breaker.fail(ValueError("command XADD … prompt"))
        clock.now += 2.5
        breaker.succeed()
        breaker.succeed()
    assert [line["event"] for line in lines] == ["hot_tier_away", "hot_tier_back"]
    assert lines[0]["error"] == "ValueError" and "prompt" not in str(lines)
    assert lines[1]["away_s"] == 2.5
