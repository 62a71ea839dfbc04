"""Keys and entries, and what may be concluded from them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.stores.redis_layout import (
    FIELD,
    RedisKeys,
    decode,
    encode,
    entries,
    entry_id,
    gapless,
    position,
)
from registries.contracts.runs import RunEvent


def event(seq: int, type: str = "node.completed", **data: object) -> RunEvent:
    return RunEvent(run_id="r", seq=seq, time=1.25, type=type, node="n", attempt=2, data=data)


def test_keys_name_instance_and_run() -> None:
    keys = RedisKeys("a[b]", "p")
    assert keys.events("r1") == "parley:a[b]:run:r1:events"
    assert keys.state("r1") == "parley:a[b]:run:r1:state"
    assert keys.known == "parley:a[b]:known:p"
    assert keys.all_runs == r"parley:a\[b\]:run:*"


def test_an_event_comes_back_as_it_was() -> None:
    sent = event(7, text="– “quoted” \x00", numbers=[1, None, 0.1], deep={"k": True})
    assert decode("r", {FIELD: encode(sent).encode()}) == sent
    half = event(8, text="\ud800")
    assert decode("r", {FIELD: encode(half).encode()}) == half


def test_an_entry_that_is_not_ours_is_no_event() -> None:
    for raw in (b"", b"[]", b"{}", b"\xff", b'{"seq": "x"}', b'{"seq": 1, "time": 1, "type": "no.such"}'):
        assert decode("r", {FIELD: raw}) is None
    assert decode("r", {b"other": b"1"}) is None


def test_ids_order_tokens_after_their_event() -> None:
    assert (entry_id(5, False), entry_id(5, True)) == ("5-0", "5-*")
    assert position(b"5-0") < position(b"5-12") < position(b"6-0") < position(b"10-0")
    assert entries([(b"5-0", {FIELD: b"x"}), (b"5-1", {})]) == [((5, 0), {FIELD: b"x"})]
    assert entries(None) == []


@given(st.sets(st.integers(1, 12)), st.integers(0, 12))
def test_only_what_follows_without_a_gap_counts(present: set[int], after: int) -> None:
    events = [e for seq in sorted(present) for e in (event(seq), event(seq, "node.token"))]
    found = gapless(events, after)
    seqs = [e.seq for e in found]
    assert seqs == list(range(after + 1, after + 1 + len(seqs)))
    assert set(seqs) <= present and after + len(seqs) + 1 not in present
    assert all(e.type != "node.token" for e in found)
