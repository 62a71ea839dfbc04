"""Conditions of edges and loops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.condition import Condition, parse_condition

names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
conditions = st.builds(Condition, node=names, signal=names, negated=st.booleans())


@given(conditions)
def test_what_is_written_is_read_again(condition: Condition) -> None:
    assert parse_condition(str(condition)) == condition


@given(conditions, st.dictionaries(names, st.lists(names)))
def test_a_condition_and_its_negation_never_agree(
    condition: Condition, signals: dict[str, list[str]]
) -> None:
    opposite = Condition(condition.node, condition.signal, not condition.negated)
    assert condition.holds(signals) != opposite.holds(signals)


@pytest.mark.parametrize(
    "text", ["", "creator", "a.b.c", "not", "a . b", "not not a.b", "a.b or c.d", "A.b", "a.b; x"]
)
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be 'node\.signal' or 'not node\.signal'"):
        parse_condition(text)


def test_a_node_that_has_not_run_raises_no_signal() -> None:
    assert not parse_condition("challenger.no_fault").holds({})
    assert parse_condition("not challenger.no_fault").holds({})
