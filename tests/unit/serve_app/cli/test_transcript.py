"""Events become a conversation in which nothing is lost or mixed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.runs import NodeResult, RunEvent
from serve_app.cli.transcript import Piece, Transcript, node_facts, transcript_of
from tests.unit.serve_app.sample_answers import event, node, run_events, spoken


def play(events: list[dict[str, Any]]) -> list[Piece]:
    transcript = Transcript()
    pieces = [piece for e in events for piece in transcript.feed(RunEvent.model_validate(e))]
    return pieces + list(transcript.rest())


def told(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Heading and words of each speaker."""
    found: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.kind == "heading":
            found.append((piece.text, ""))
        elif piece.kind == "words":
            found[-1] = (found[-1][0], found[-1][1] + piece.text)
    return found


def test_a_run_reads_like_a_conversation() -> None:
    pieces = play([data for _, data in run_events()])
    assert told(pieces) == [("creator", "75"), ("challenger", "I get 85. Wrong."), ("refiner", "85")]
    assert Piece("fact", "nano-m, 4 tokens, 0.25 s") in pieces


def test_words_are_shown_as_they_come() -> None:
    transcript = Transcript()
    shown = [[p.text for p in transcript.feed(RunEvent.model_validate(e))] for _, e in spoken("a", "x", "y")]
    assert shown == [["a"], ["x"], ["y"], ["nano-m, 4 tokens, 0.25 s"]]


def test_a_second_visit_is_a_second_turn_and_a_second_round_is_said() -> None:
    again = [{**e, "data": {**e["data"], "visit": 2}} for _, e in spoken("challenger", "Right.")]
    pieces = play(
        [e for _, e in spoken("challenger", "Wrong.")]
        + [event("round.started", "challenger", round=2)]
        + again
    )
    assert told(pieces) == [("challenger", "Wrong."), ("challenger", "Right.")]
    assert Piece("fact", "round 2") in pieces


def test_a_text_that_was_not_streamed_is_shown_at_the_end() -> None:
    events = [
        event("node.started", "a", role="a", visit=1),
        event("node.completed", "a", **node("a", "all of it")),
    ]
    assert told(play(events)) == [("a", "all of it")]


def test_a_new_attempt_starts_anew_under_the_same_heading() -> None:
    events = [
        event("node.started", "a", role="a", visit=1),
        event("node.token", "a", text="half", visit=1),
        event("node.started", "a", attempt=2, role="a", visit=1),
        event("node.token", "a", attempt=2, text="whole", visit=1),
        event("node.completed", "a", attempt=2, **node("a", "whole")),
    ]
    pieces = play(events)
    assert [p.text for p in pieces] == ["a", "half", "attempt 2", "whole", "nano-m, 4 tokens, 0.25 s"]


def test_failed_and_skipped_nodes_say_so() -> None:
    failed = node("a", status="failed", error={"code": "provider_error", "message": "nobody answered"})
    skipped = node("b", status="skipped", data={"reason": "not needed"})
    events = [event("node.failed", "a", **failed), event("node.skipped", "b", **skipped)]
    texts = [p.text for p in play(events)]
    assert texts == ["a", "failed: nobody answered", "b", "skipped: not needed"]
    results = tuple(NodeResult.model_validate(n) for n in (failed, skipped))
    assert [p.text for p in transcript_of(results)] == texts


def test_facts_name_failed_attempts_and_the_cache() -> None:
    attempts = [{"outcome": "error"}, {"outcome": "ok"}]
    assert node_facts({"attempts": attempts, "cache_hit": True}) == "after 1 failed attempt, from the cache"
    assert node_facts({}) == "done"


def test_words_that_were_missed_are_made_good() -> None:
    events = [
        event("node.started", "a", role="a", visit=1),
        event("node.token", "a", text="ab", visit=1),
        event("node.token", "a", text="ef", visit=1),
        event("node.completed", "a", **node("a", "abcdef")),
    ]
    texts = [p.text for p in play(events)]
    assert texts[3].startswith("some words did not arrive") and texts[4] == "abcdef"
    events[-1] = event("node.completed", "a", **node("a", "another text"))
    assert "another text" not in [p.text for p in play(events)], "a node may tidy up what was said"


def test_a_run_that_was_resumed_says_so_and_its_later_nodes_have_no_new_attempt() -> None:
    later = [{**e, "attempt": 2} for _, e in spoken("refiner", "85")]
    texts = [p.text for p in play([event("run.resumed", seq=5), *later])]
    assert texts == ["a human has answered; the run goes on", "refiner", "85", "nano-m, 4 tokens, 0.25 s"]


pieces_of_text = st.lists(st.text(min_size=1, max_size=6), max_size=5)


@given(st.dictionaries(st.sampled_from("abcde"), pieces_of_text, min_size=1), st.randoms())
def test_experts_who_speak_at_once_are_read_one_after_another(
    experts: dict[str, list[str]], random: Any
) -> None:
    queues = [[e for _, e in spoken(name, *texts)] for name, texts in experts.items()]
    mixed = []
    while alive := [q for q in queues if q]:
        mixed.append(random.choice(alive).pop(0))
    started = [e["node"] for e in mixed if e["type"] == "node.started"]
    expected = [(name, "".join(experts[name])) for name in started]
    assert told(play(mixed)) == expected
    # Also when the end is missing: what was said is shown.
    assert dict(told(play([e for e in mixed if e["type"] != "node.completed"]))) == dict(expected)
