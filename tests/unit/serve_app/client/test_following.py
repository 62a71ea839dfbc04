"""A run's events arrive exactly once and in order, whatever happens to the connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.errors import InternalError, NotFound, ParleyError
from registries.contracts.runs import RunEvent, RunRequest
from serve_app.client import AsyncClient, Client, Connection, NotRunning, Retries
from serve_app.client.api_errors import StreamCut, error_from_fact
from serve_app.client.following import GOOD_CONNECTION_S, Following
from tests.unit.serve_app.client.torn_network import TornNetwork, Trouble, story

HERE = Connection("http://parley", "key")
AT_ONCE = Retries(base_s=0)
ASK = RunRequest(prompt="x", flow_type="linear")
troubles = st.lists(st.tuples(st.sampled_from(get_args(Trouble)), st.floats(0, 1)), max_size=8)
stories = st.builds(story, st.lists(st.integers(0, 3), max_size=4), waits=st.booleans(), fails=st.booleans())
Read = Callable[[TornNetwork, str, int], list[RunEvent]]


def read_blocking(network: TornNetwork, method: str, after: int) -> list[RunEvent]:
    with Client(connection=HERE, transport=network.transport(), retries=AT_ONCE) as client:
        return list(client.events("run-1", after) if method == "events" else client.stream_run(ASK))


def read_async(network: TornNetwork, method: str, after: int) -> list[RunEvent]:
    async def read() -> list[RunEvent]:
        async with AsyncClient(connection=HERE, transport=network.transport(), retries=AT_ONCE) as client:
            source = client.events("run-1", after) if method == "events" else client.stream_run(ASK)
            return [event async for event in source]

    return asyncio.run(read())


both = pytest.mark.parametrize("read", [read_blocking, read_async])


@both
@given(told=stories, plan=troubles, data=st.data())
def test_durable_events_arrive_once_and_in_order(
    read: Read, told: list[RunEvent], plan: list[tuple[Trouble, float]], data: Any
) -> None:
    network = TornNetwork(told, plan)
    after = data.draw(st.integers(0, len(network.durable) - 1))
    seen = read(network, "events", after)
    assert [e for e in seen if e.type != "node.token"] == network.durable[after:]
    assert {e.model_dump_json() for e in seen} <= {e.model_dump_json() for e in told}
    attached = [named for _, _, named, _ in network.asked]
    assert attached[0] == after and attached == sorted(attached), "it never goes back"


@both
@given(told=st.lists(st.integers(0, 3), max_size=4).map(story), plan=troubles)
def test_a_streamed_run_outlives_its_connections(
    read: Read, told: list[RunEvent], plan: list[tuple[Trouble, float]]
) -> None:
    network = TornNetwork(told, plan)
    try:
        seen = read(network, "stream_run", 0)
    except ParleyError:
        # Nothing is known of the run yet: its order is given three times at most.
        assert [method for method, *_ in network.asked] == ["POST"] * 3
        return
    assert [e for e in seen if e.type != "node.token"] == network.durable
    methods = [method for method, *_ in network.asked]
    assert methods == sorted(methods, reverse=True), "once the run has an id, it is read and not ordered"
    assert len({key for method, _, _, key in network.asked if method == "POST"}) == 1


@both
@given(told=stories, plan=troubles)
def test_a_run_that_a_key_had_made_is_read_to_its_newest_end(
    read: Read, told: list[RunEvent], plan: list[tuple[Trouble, float]]
) -> None:
    network = TornNetwork(told, plan, replayed=True)
    try:
        seen = read(network, "stream_run", 0)
    except ParleyError:
        assert [method for method, *_ in network.asked] == ["POST"] * 3
        return
    assert [e for e in seen if e.type != "node.token"] == network.durable


@both
def test_it_is_cut_at_every_byte_once(read: Read) -> None:
    told = story([2, 1], waits=True, fails=True)
    for share in range(101):
        network = TornNetwork(told, [("torn", share / 100), ("ended", share / 200)])
        seen = [e for e in read(network, "events", 0) if e.type != "node.token"]
        assert seen == network.durable, share


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    following = Following(AT_ONCE, "run-1")
    with pytest.raises(NotFound):
        following.wait_after(NotFound("unknown run", context={"status": 404, "code": "not_found"}))
    with pytest.raises(InternalError):
        following.wait_after(InternalError("a bug", context={"status": 500, "code": "internal"}))
    store_down = error_from_fact({"code": "store_unavailable", "message": "x", "retryable": True})
    assert following.wait_after(store_down) == 0.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_patience_runs_out_while_nothing_answers_and_begins_anew_with_an_event() -> None:
    clock, told = Clock(), story([1])
    following = Following(Retries(base_s=0, patience_s=10), "run-1", clock=clock)
    following.call()
    clock.now += 9
    following.wait_after(NotRunning("refused"))
    assert following.take(told[0])
    clock.now += 9
    following.wait_after(NotRunning("refused"))
    clock.now += 2
    with pytest.raises(NotRunning, match="refused"):
        following.wait_after(NotRunning("refused"))


def test_a_long_silent_connection_that_breaks_costs_no_patience() -> None:
    clock = Clock()
    following = Following(Retries(base_s=0, patience_s=10), "run-1", clock=clock)
    for _ in range(100):
        following.call()
        clock.now += GOOD_CONNECTION_S
        assert following.wait_after(StreamCut("a proxy's limit")) == 0.0


def test_events_that_stay_away_end_in_an_error_and_never_in_a_gap() -> None:
    told, clock = story([0]), Clock()
    following = Following(Retries(base_s=0, patience_s=10), "run-1", clock=clock)
    assert following.take(told[0])
    with pytest.raises(StreamCut, match="event 3 of run run-1 came after event 1"):
        following.take(told[2])
    gap = StreamCut("event 3 of run run-1 came after event 1")
    following.call()
    assert following.wait_after(gap) == 0.0
    clock.now += 11
    following.call()
    with pytest.raises(StreamCut):
        following.wait_after(gap)


@both
def test_it_ends_where_the_run_waits_if_that_is_asked(read: Read) -> None:
    paused = story([1], waits=True)[:-2]
    network = TornNetwork(paused)
    assert [e.type for e in read(network, "stream_run", 0)][-1] == "run.waiting"
    assert len(network.asked) == 1
    network.asked.clear()
    with Client(connection=HERE, transport=network.transport(), retries=AT_ONCE) as client:
        assert [e.type for e in client.events("run-1", until="waiting")][-1] == "run.waiting"
        assert len(network.asked) == 1
        assert list(client.events("run-1", after=5, until="waiting")) == [], "it waits already"
    past = TornNetwork(story([1], waits=True))
    with Client(connection=HERE, transport=past.transport(), retries=AT_ONCE) as client:
        assert [e.type for e in client.events("run-1", until="waiting")][-1] == "run.completed"


@both
def test_nothing_comes_after_an_end_that_was_seen(read: Read) -> None:
    network = TornNetwork(story([1]))
    assert read(network, "events", len(network.durable)) == [] and len(network.asked) == 1


def test_whoever_watches_is_told_of_a_new_connection() -> None:
    told: list[tuple[ParleyError, float, int]] = []
    retries = Retries(base_s=0, on_reattach=lambda *news: told.append(news))
    network = TornNetwork(story([1]), [("ended", 0.7)])
    with Client(connection=HERE, transport=network.transport(), retries=retries) as client:
        list(client.events("run-1"))
    ((error, wait_s, number),) = told
    assert isinstance(error, StreamCut) and wait_s == 0 and number == 1
