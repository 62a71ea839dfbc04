"""Counters that are summed up, gauges that are set again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from actors.telemetry.series_keeper import SeriesKeeper
from tests.polling import until


class RecordedGauge:
    def __init__(self) -> None:
        self.sets: list[tuple[float, dict[str, str]]] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.sets.append((value, tags))


class RecordedCounter:
    def __init__(self) -> None:
        self.added: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.added.append((value, tags))


@pytest.fixture
def keeper() -> Iterator[SeriesKeeper]:
    keeper = SeriesKeeper(report_every_s=3600, max_gauges=2)
    yield keeper
    keeper.stop()


def test_the_last_value_of_each_label_set_is_told_again_and_again(keeper: SeriesKeeper) -> None:
    gauge = RecordedGauge()
    for value, flow in ((1.0, "a"), (5.0, "b"), (0.0, "a")):
        keeper.set("active_workflows", gauge, value, {"workflow_type": flow})
    for _ in range(2):
        keeper.report()
        assert gauge.sets == [(5.0, {"workflow_type": "b"}), (0.0, {"workflow_type": "a"})]
        gauge.sets.clear()


def test_the_label_set_without_news_for_longest_is_let_go(keeper: SeriesKeeper) -> None:
    gauge = RecordedGauge()
    for flow in ("a", "b", "a", "c"):
        keeper.set("active_workflows", gauge, 1.0, {"workflow_type": flow})
    keeper.report()
    assert [tags["workflow_type"] for _, tags in gauge.sets] == ["a", "c"]


def test_counts_are_told_once_as_their_sum(keeper: SeriesKeeper) -> None:
    tokens, errors = RecordedCounter(), RecordedCounter()
    for value, model in ((3.0, "s"), (4.0, "m"), (5.0, "s"), (0.0, "x")):
        keeper.add("tokens_total", tokens, value, {"model": model})
    keeper.add("errors_total", errors, 1.0, {})
    keeper.report()
    keeper.report()
    assert tokens.added == [(8.0, {"model": "s"}), (4.0, {"model": "m"})]
    assert errors.added == [(1.0, {})]


def test_no_count_is_lost_while_others_report(keeper: SeriesKeeper) -> None:
    counter = RecordedCounter()

    def count() -> None:
        for _ in range(500):
            keeper.add("runs_total", counter, 1.0, {})

    counting = [threading.Thread(target=count) for _ in range(4)]
    for thread in counting:
        thread.start()
    while any(thread.is_alive() for thread in counting):
        keeper.report()
    keeper.report()
    assert sum(value for value, _ in counter.added) == 2000


async def test_it_reports_by_itself_until_stopped() -> None:
    gauge, counter = RecordedGauge(), RecordedCounter()
    keeper = SeriesKeeper(report_every_s=0.01)
    keeper.set("queue_depth", gauge, 3.0, {"component": "runner"})
    keeper.add("runs_total", counter, 2.0, {})
    await until(lambda: len(gauge.sets) >= 4, 5)
    keeper.stop()
    assert {value for value, _ in gauge.sets} == {3.0} and counter.added == [(2.0, {})]
    assert keeper._thread is not None and not keeper._thread.is_alive()
