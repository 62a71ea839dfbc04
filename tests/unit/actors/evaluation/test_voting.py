"""Votes and token matching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.voting import MAX_SAMPLES, majority, samples_for_tokens

ballots = st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [(["a"], 0), (["a", "b", "b"], 1), (["b", "a", "a", "b"], 0), (["", "", "a"], 2), (["", ""], 0)],
)
def test_majority(answers: list[str], winner: int) -> None:
    assert majority(answers) == winner


def test_no_ballot_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        majority([])


@given(ballots)
def test_the_winner_has_most_votes(answers: list[str]) -> None:
    winner = answers[majority(answers)]
    assert all(answers.count(winner) >= answers.count(other) for other in answers if other)
    assert winner or not any(answers)


@given(ballots, st.randoms(use_true_random=False))
def test_a_clear_majority_does_not_depend_on_order(answers: list[str], random: object) -> None:
    winner = answers[majority(answers)]
    shuffled = list(answers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    if answers.count(winner) * 2 > len(answers):
        assert shuffled[majority(shuffled)] == winner


@given(st.floats(0.1, 1e6), st.floats(0.1, 1e6))
def test_voting_never_gets_fewer_tokens_than_the_flow(flow: float, sample: float) -> None:
    samples = samples_for_tokens(flow, sample)
    assert 1 <= samples <= MAX_SAMPLES
    if samples < MAX_SAMPLES:
        assert samples * sample >= flow * (1 - 1e-12)
    assert (samples - 1) * sample < flow or samples == 1


@pytest.mark.parametrize(("flow", "sample"), [(0, 1), (1, 0), (-1, 1)])
def test_nothing_cannot_be_matched(flow: float, sample: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        samples_for_tokens(flow, sample)
