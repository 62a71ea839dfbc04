"""Gauges that are set again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.telemetry.gauge_keeper import GaugeKeeper
from tests.polling import until


class RecordedGauge:
    def __init__(self) -> None:
        self.sets: list[tuple[float, dict[str, str]]] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.sets.append((value, tags))


@pytest.fixture
def keeper() -> Iterator[GaugeKeeper]:
    keeper = GaugeKeeper(refresh_every_s=3600, max_series=2)
    yield keeper
    keeper.stop()


def test_the_last_value_of_each_label_set_is_set_again(keeper: GaugeKeeper) -> None:
    gauge = RecordedGauge()
    for value, flow in ((1.0, "a"), (5.0, "b"), (0.0, "a")):
        keeper.set("active_workflows", gauge, value, {"workflow_type": flow})
    assert len(gauge.sets) == 3
    keeper.refresh()
    assert gauge.sets[3:] == [(5.0, {"workflow_type": "b"}), (0.0, {"workflow_type": "a"})]


def test_the_label_set_without_news_for_longest_is_let_go(keeper: GaugeKeeper) -> None:
    gauge = RecordedGauge()
    for flow in ("a", "b", "a", "c"):
        keeper.set("active_workflows", gauge, 1.0, {"workflow_type": flow})
    gauge.sets.clear()
    keeper.refresh()
    assert [tags["workflow_type"] for _, tags in gauge.sets] == ["a", "c"]


async def test_it_refreshes_by_itself_until_stopped() -> None:
    gauge = RecordedGauge()
    keeper = GaugeKeeper(refresh_every_s=0.01)
    keeper.set("queue_depth", gauge, 3.0, {"component": "runner"})
    await until(lambda: len(gauge.sets) >= 4, 5)
    keeper.stop()
    assert {value for value, _ in gauge.sets} == {3.0}
    assert keeper._thread is not None and not keeper._thread.is_alive()
