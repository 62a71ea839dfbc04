from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.errors import ValidationError
from registries.contracts.well_formed import WellFormedStream, well_formed

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))


def test_pairs_are_joined_and_lone_halves_replaced() -> None:
    assert well_formed("a \ud83d\ude00 b") == "a \U0001f600 b"
    assert well_formed("\ude00 then \ud83d") == "\ufffd then \ufffd"
    text = "plain – \U0001f600"
    assert well_formed(text) is text


@given(ANY_TEXT)
def test_any_text_can_be_written_afterwards(text: str) -> None:
    once = well_formed(text)
    once.encode()
    assert well_formed(once) is once


@given(st.lists(ANY_TEXT))
def test_a_text_in_pieces_comes_to_the_same(pieces: list[str]) -> None:
    stream = WellFormedStream()
    shown = [stream.take(piece) for piece in pieces]
    for piece in shown:
        piece.encode()
    assert "".join(shown) + stream.rest() == well_formed("".join(pieces))


def test_the_words_of_an_error_are_well_formed_too() -> None:
    assert ValidationError("the provider said \ud83d").message == "the provider said \ufffd"
