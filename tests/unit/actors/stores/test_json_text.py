from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.json_text import dump_json, load_json

_text = st.text(st.characters(codec=None))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=10,
)


@given(_json)
def test_what_goes_in_comes_out(value: Any) -> None:
    text = dump_json(value)
    assert load_json(text) == value
    assert "\0" not in text


def test_halves_of_surrogate_pairs_can_be_stored() -> None:
    text = dump_json({"text": "half \ud83d of a smile"})
    text.encode()
    assert load_json(text) == {"text": "half \ud83d of a smile"}


def test_a_number_that_json_lacks_is_null() -> None:
    assert load_json(dump_json([math.nan])) == [None]


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        dump_json({"a": object()})
