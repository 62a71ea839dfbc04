"""Server-sent events out of bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from serve_app.client.event_stream import EventStreamParser, StreamEvent
from serve_app.sse import HEARTBEAT, frame


def parse(data: bytes, size: int = 1_000_000) -> list[StreamEvent]:
    parser = EventStreamParser()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [event for piece in pieces for event in parser.feed(piece)]


def test_types_ids_and_data() -> None:
    assert parse(b"event: a\nid: 7\ndata: x\ndata:y\n\n: beat\r\n\r\ndata: z\n\n") == [
        StreamEvent("a", "x\ny", "7"),
        StreamEvent("message", "z", "7"),
    ]


def test_an_event_without_data_is_none() -> None:
    assert parse(b"event: a\n\nretry: 3\n\n") == []


def test_an_event_without_its_empty_line_is_not_there_yet() -> None:
    assert parse(b"data: x\n") == []


names = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True)
texts = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.just("\u2028\x85\u2029"))


@given(st.lists(st.tuples(names, texts, st.integers(0, 9))), st.integers(1, 50))
def test_what_the_server_writes_is_what_the_client_reads(
    events: list[tuple[str, dict[str, str], int]], size: int
) -> None:
    wire = b"".join(
        frame(name, json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass"), id) + HEARTBEAT
        for name, data, id in events
    )
    read = [(e.type, json.loads(e.data), int(e.id or -1)) for e in parse(wire, size)]
    assert read == events


def test_it_knows_whether_it_is_inside_an_event() -> None:
    whole = b": beat\nevent: a\nid: 1\ndata: x\n\n: beat\n"
    inside = []
    for length in range(len(whole) + 1):
        parser = EventStreamParser()
        list(parser.feed(whole[:length]))
        inside.append(not parser.is_between_events)
    between = [0, len(b": beat\n"), whole.index(b"\n\n") + 2, len(whole)]
    assert [at for at, yes in enumerate(inside) if not yes] == between
