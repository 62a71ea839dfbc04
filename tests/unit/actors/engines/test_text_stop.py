from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.text_stop import StopScanner

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3).map(tuple)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(edges)]


@given(TEXT, st.lists(st.integers(0, 30), max_size=8))
def test_without_stops_everything_passes_at_once(text: str, cuts: list[int]) -> None:
    scanner = StopScanner(())
    for piece in pieces_of(text, cuts):
        assert scanner.feed(piece) == piece
    assert scanner.flush() == ""


@given(TEXT, st.text(alphabet="abc", min_size=1, max_size=4), st.lists(st.integers(0, 30), max_size=8))
def test_ends_before_the_stop_however_the_text_is_cut(text: str, stop: str, cuts: list[int]) -> None:
    scanner = StopScanner((stop,))
    shown = "".join(scanner.feed(piece) for piece in pieces_of(text, cuts)) + scanner.flush()
    at = text.find(stop)
    assert shown == (text if at < 0 else text[:at])
    assert scanner.stopped is (at >= 0)


@given(TEXT, STOPS, st.lists(st.integers(0, 30), max_size=8))
def test_no_stop_string_is_ever_shown(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    scanner = StopScanner(stops)
    shown = "".join(scanner.feed(piece) for piece in pieces_of(text, cuts)) + scanner.flush()
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)


def test_holds_back_only_what_could_become_a_stop() -> None:
    scanner = StopScanner(("END",))
    assert scanner.feed("the E") == "the "
    assert scanner.feed("ast") == "East"
    assert scanner.feed(" EN") == " "
    assert scanner.flush() == "EN"


def test_nothing_comes_after_a_stop() -> None:
    scanner = StopScanner(("x",))
    assert scanner.feed("axb") == "a"
    assert scanner.feed("more") == ""
    assert scanner.flush() == ""
