from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from actors.running.coalescing import coalesced, is_durable
from registries.contracts.runs import RunEvent


def token(text: str, node: str = "a", seq: int = 1, **data: object) -> RunEvent:
    return RunEvent(run_id="r", seq=seq, time=0, type="node.token", node=node, data={"text": text, **data})


def done(seq: int) -> RunEvent:
    return RunEvent(run_id="r", seq=seq, time=0, type="node.completed", node="a")


events = st.lists(
    st.one_of(
        st.builds(token, st.text(max_size=3), st.sampled_from("ab"), st.integers(1, 2)),
        st.builds(done, st.just(9)),
    ),
    max_size=30,
)


@given(events)
def test_no_text_no_order_and_no_durable_event_is_lost(given_events: list[RunEvent]) -> None:
    merged = coalesced(given_events)
    for node in "ab":
        before = "".join(e.data["text"] for e in given_events if not is_durable(e) and e.node == node)
        after = "".join(e.data["text"] for e in merged if not is_durable(e) and e.node == node)
        assert before == after
    assert [e for e in merged if is_durable(e)] == [e for e in given_events if is_durable(e)]
    assert coalesced(merged) == merged
    for first, second in itertools.pairwise(merged):
        assert is_durable(first) or is_durable(second) or (first.node, first.seq) != (second.node, second.seq)


def test_token_counts_are_added_and_other_facts_keep_apart() -> None:
    merged = coalesced([token("a", tokens=2), token("b", tokens=3), token("c", visit=2)])
    assert [(e.data["text"], e.data.get("tokens")) for e in merged] == [("ab", 5), ("c", None)]
