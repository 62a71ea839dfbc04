from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.run_ids import uuid7

MS = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=10, max_size=10)


@given(ms=MS, random=RANDOM)
def test_ids_are_version_7_uuids_that_carry_the_time(ms: int, random: bytes) -> None:
    made = uuid.UUID(uuid7(ms, random))
    assert made.version == 7 and made.variant == uuid.RFC_4122
    assert made.int >> 80 == ms


@given(first=MS, second=MS, random=RANDOM, other=RANDOM)
def test_ids_sort_by_time(first: int, second: int, random: bytes, other: bytes) -> None:
    if first < second:
        assert uuid7(first, random) < uuid7(second, other)


def test_ten_random_bytes_are_needed() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        uuid7(1, b"short")
