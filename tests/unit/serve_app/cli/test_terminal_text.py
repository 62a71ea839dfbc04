"""Text that comes from models cannot steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.cli.terminal_text import harmless

evil = st.text(
    st.sampled_from("\x1b[]0;31mAZ\x07\x9b\x9d\\\n\t\r\u202e\u200b") | st.characters(), max_size=60
)


@given(evil)
def test_no_control_sign_survives_save_tab_and_newline(text: str) -> None:
    for sign in harmless(text):
        code = ord(sign)
        assert sign in "\n\t" or (code >= 0x20 and not 0x7F <= code <= 0x9F)
        assert not 0x202A <= code <= 0x202E and not 0x2066 <= code <= 0x2069


@given(evil)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert harmless(harmless(text)) == harmless(text)


@given(evil, evil)
def test_two_pieces_are_as_harmless_as_one(first: str, second: str) -> None:
    assert "\x1b" not in harmless(first) + harmless(second)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x9b2J gone", " gone"),
        ("naïve 日本語 🙂\tok", "naïve 日本語 🙂\tok"),
        ("abc\u202edef", "abcdef"),
    ],
)
def test_sequences_go_as_a_whole(text: str, shown: str) -> None:
    assert harmless(text) == shown
