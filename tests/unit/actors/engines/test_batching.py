"""Rows, detokenising and the batch loop, on a tokenizer of single characters and a model that counts."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engines.batch_loop import BatchLoop
from actors.engines.batch_row import BatchRow, Piece
from actors.engines.detokenizer import Detokenizer
from tests.polling import until

torch = pytest.importorskip("torch")
END = 0
VOCABULARY = 64


class Bytes:
    """Ids are UTF-8 bytes: characters of several bytes come in parts, as with real byte tokenizers."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


class Letters:
    """Id n is the n-th letter from 'A'; 0 is the end."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(64 + number) for number in ids if number != END)


@dataclass
class Cache:
    """Keeps the last id of each row, as a real cache keeps keys and values."""

    last: Any

    def batch_select_indices(self, indices: Any) -> None:
        self.last = self.last[indices]


@dataclass
class Output:
    logits: Any
    past_key_values: Cache


class Counting:
    """Says the id after the last one; looks at the mask, so that a wrong padding shows."""

    device = "cpu"

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.fail = False

    def __call__(
        self, input_ids: Any, attention_mask: Any, position_ids: Any, past_key_values: Any, **_: Any
    ) -> Output:
        if self.fail:
            raise RuntimeError("out of memory")
        self.widths.append(len(input_ids))
        assert attention_mask.shape[0] == len(input_ids)
        assert (position_ids[:, -1] == attention_mask.sum(dim=-1) - 1).all()
        if past_key_values is not None:
            assert len(past_key_values.last) == len(input_ids)
        last = input_ids[:, -1]
        logits = torch.zeros((len(last), 1, VOCABULARY))
        logits[torch.arange(len(last)), 0, (last + 1) % VOCABULARY] = 5.0
        return Output(logits, Cache(last.clone()))


def row(prompt: list[int], pieces: queue.Queue[Piece], **options: Any) -> BatchRow:
    chosen: dict[str, Any] = {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": None,
        "seed": None,
        "stop": (),
        "end_ids": frozenset({END}),
    }
    return BatchRow(prompt, tokenizer=Letters(), deliver=pieces.put, **{**chosen, **options})


def answer(pieces: queue.Queue[Piece]) -> tuple[str, str | None]:
    text = ""
    while True:
        piece = pieces.get(timeout=10)
        if piece.error is not None:
            raise piece.error
        text += piece.text
        if piece.finish_reason is not None:
            return text, piece.finish_reason


@pytest.fixture
def model() -> Counting:
    return Counting()


@pytest.fixture
def loop(model: Counting) -> Any:
    batch = BatchLoop(model, pad_id=END, max_rows=4)
    batch.start()
    yield batch
    batch.close()


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=20))
def test_detokenizing_byte_by_byte_gives_the_text(text: str) -> None:
    detokenizer = Detokenizer(Bytes())
    parts = [detokenizer.feed(byte) for byte in text.encode()]
    assert "".join(parts) + detokenizer.flush() == text
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=9))
def test_every_row_gets_its_own_answer_whatever_shares_its_batch(asked: list[tuple[int, int]]) -> None:
    batch = BatchLoop(Counting(), pad_id=END, max_rows=4)
    batch.start()
    try:
        boxes = [queue.Queue() for _ in asked]
        for (size, tokens), pieces in zip(asked, boxes, strict=True):
            batch.submit(row([1] * size + [size], pieces, max_tokens=tokens))
        for (size, tokens), pieces in zip(asked, boxes, strict=True):
            expected = "".join(chr(64 + size + step) for step in range(1, tokens + 1))
            assert answer(pieces) == (expected, "length")
    finally:
        batch.close()


def test_requests_that_wait_together_run_together(model: Counting) -> None:
    batch = BatchLoop(model, pad_id=END, max_rows=8)
    boxes = [queue.Queue() for _ in range(5)]
    for pieces in boxes:
        batch.submit(row([1, 2], pieces))
    assert batch.waiting == 5
    batch.start()
    assert {answer(pieces) for pieces in boxes} == {("CDEFG", "length")}
    assert model.widths[0] == 5
    batch.close()
    assert (batch.running, batch.waiting) == (0, 0)


def test_end_token_and_stop_string_end_a_row(loop: BatchLoop) -> None:
    ended, stopped = queue.Queue(), queue.Queue()
    loop.submit(row([VOCABULARY - 2], ended, max_tokens=30))
    loop.submit(row([1], stopped, max_tokens=30, stop=("EF",)))
    assert answer(ended)[1] == "stop"
    assert answer(stopped) == ("BCD", "stop")


async def test_a_cancelled_row_leaves_the_batch(loop: BatchLoop) -> None:
    pieces: queue.Queue[Piece] = queue.Queue()
    endless = row([1], pieces, max_tokens=10_000_000, end_ids=frozenset())
    loop.submit(endless)
    pieces.get(timeout=10)
    endless.cancelled = True
    other: queue.Queue[Piece] = queue.Queue()
    loop.submit(row([1], other, max_tokens=3))
    assert answer(other) == ("BCD", "length")
    await until(lambda: loop.running == 0, 5)


def test_a_failing_model_fails_its_calls_and_not_the_thread(loop: BatchLoop, model: Counting) -> None:
    pieces: queue.Queue[Piece] = queue.Queue()
    model.fail = True
    loop.submit(row([1], pieces))
    with pytest.raises(RuntimeError, match="out of memory"):
        answer(pieces)
    model.fail = False
    loop.submit(row([1], pieces, max_tokens=2))
    assert answer(pieces) == ("BC", "length")


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.01}, {"top_k": 2, "top_p": 0.01}])
def test_the_narrowest_sampling_is_greedy(loop: BatchLoop, options: dict[str, Any]) -> None:
    pieces: queue.Queue[Piece] = queue.Queue()
    loop.submit(row([1], pieces, temperature=1.5, seed=3, **options))
    assert answer(pieces) == ("BCDEF", "length")


def test_a_seed_decides_whatever_else_is_in_the_batch(loop: BatchLoop) -> None:
    def draw(neighbours: int) -> str:
        others = [queue.Queue() for _ in range(neighbours)]
        for pieces in others:
            loop.submit(row([2, 2], pieces, temperature=2.0, max_tokens=8))
        mine: queue.Queue[Piece] = queue.Queue()
        loop.submit(row([1], mine, temperature=2.0, seed=5, max_tokens=8))
        text = answer(mine)[0]
        for pieces in others:
            answer(pieces)
        return text

    assert draw(0) == draw(3)


def test_without_a_seed_draws_differ(loop: BatchLoop) -> None:
    texts = set()
    for _ in range(6):
        pieces: queue.Queue[Piece] = queue.Queue()
        loop.submit(row([1], pieces, temperature=5.0, max_tokens=12))
        texts.add(answer(pieces)[0])
    assert len(texts) > 1
