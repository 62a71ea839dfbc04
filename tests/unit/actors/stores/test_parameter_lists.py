from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.stores.parameter_lists import marks, next_power_of_two, padded_parts


@given(st.lists(st.integers(), max_size=300), st.sampled_from([1, 8, 64]))
def test_padded_parts_hold_all_values_and_no_other(values: list[int], at_most: int) -> None:
    parts = list(padded_parts(values, at_most))
    assert {value for part in parts for value in part} == set(values)
    assert all(len(part) <= at_most and len(part) == next_power_of_two(len(part)) for part in parts)


@given(st.integers(min_value=1, max_value=1 << 20))
def test_the_next_power_of_two_is_the_smallest_that_is_enough(count: int) -> None:
    power = next_power_of_two(count)
    assert power & (power - 1) == 0 and count <= power < 2 * count


def test_marks_are_as_many_as_values() -> None:
    assert marks(3) == "?, ?, ?"
