"""What goes to Redis together: order, no doubles, bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.stores.hot_tier_outbox import MAX_EVENT_BYTES, HotTierOutbox, RunNews
from registries.contracts.runs import RunEvent


def event(seq: int, type: str = "node.completed", run_id: str = "r", **data: object) -> RunEvent:
    return RunEvent(run_id=run_id, seq=seq, time=1.0, type=type, data=data)


def order(news: RunNews) -> list[tuple[int, bool]]:
    return [(seq, is_token) for seq, is_token, _ in news.entries]


def test_a_durable_event_goes_once_and_before_the_tokens_that_follow_it() -> None:
    outbox = HotTierOutbox()
    outbox.add_events("r", [event(6)])
    outbox.add_events("r", [event(5, "node.token"), event(6), event(6, "node.token")])
    assert order(outbox.take()["r"]) == [(5, True), (6, False), (6, True)]
    assert not outbox and outbox.take() == {}


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 12))
def test_any_split_between_commits_and_tokens_is_the_emitted_order(tokens: list[int], cut: int) -> None:
    emitted: list[RunEvent] = []
    for seq, count in enumerate(tokens, start=1):
        emitted.append(event(seq))
        emitted += [event(seq, "node.token", number=number) for number in range(count)]
    outbox = HotTierOutbox()
    for batch in (emitted[:cut], emitted[cut:]):
        outbox.add_events("r", [e for e in batch if e.type != "node.token"])
        outbox.add_events("r", batch)
    news = outbox.take()
    wanted = [(e.seq, e.type == "node.token") for e in emitted]
    assert (order(news["r"]) if emitted else []) == wanted
    if emitted:
        assert news["r"].state["last_seq"] == str(len(tokens))


def test_the_state_is_what_the_events_say() -> None:
    outbox = HotTierOutbox()
    outbox.add_state("r", {"last_seq": "1", "owner": "me", "tenant": "t"})
    outbox.add_events("r", [event(2, "run.started"), event(3, "run.waiting", waiting={"node": "n"})])
    news = outbox.take()["r"]
    assert news.state == {
        "last_seq": "3", "owner": "", "tenant": "t", "status": "waiting", "waiting": '{"node":"n"}',
    }  # fmt: skip
    assert not news.ended
    outbox.add_events("r", [event(4, "run.failed")])
    assert outbox.take()["r"].ended
    outbox.add_events("r", [event(5, "run.restarted")])
    assert not outbox.take()["r"].ended


def test_what_is_filled_again_takes_the_place_of_what_is_there() -> None:
    outbox = HotTierOutbox()
    outbox.add_events("r", [event(3), event(3, "node.token")])
    outbox.replace("r", [event(1), event(2), event(3)])
    outbox.add_events("r", [event(3), event(4)])
    news = outbox.take()["r"]
    assert news.anew
    assert [entry for entry in order(news) if not entry[1]] == [
        (1, False),
        (2, False),
        (3, False),
        (4, False),
    ]
    assert not outbox.take()


def test_the_oldest_is_dropped_when_there_is_too_much() -> None:
    outbox = HotTierOutbox(max_entries=3, max_bytes=10_000)
    outbox.add_events("r", [event(seq) for seq in range(1, 6)])
    assert outbox.dropped == 2
    assert order(outbox.take()["r"]) == [(3, False), (4, False), (5, False)]
    outbox = HotTierOutbox(max_entries=100, max_bytes=1000)
    outbox.add_events("r", [event(seq, text="x" * 300) for seq in range(1, 6)])
    assert 0 < len(outbox.take()["r"].entries) < 4
    outbox = HotTierOutbox(max_entries=2)
    for number in range(5):
        outbox.add_state(f"r{number}", {"last_seq": "1"})
    assert set(outbox.take()) == {"r3", "r4"}


def test_an_event_that_is_too_large_or_no_json_is_left_to_the_database() -> None:
    outbox = HotTierOutbox()
    wrong = RunEvent.model_construct(
        run_id="r", seq=2, time=1.0, type="node.completed", node=None, attempt=1, data={"x": object()}
    )
    outbox.add_events("r", [event(1, text="x" * MAX_EVENT_BYTES), wrong, event(3, text="\ud800")])
    assert order(outbox.take()["r"]) == [(3, False)]
