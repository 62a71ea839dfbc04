"""One request as a row of a batch: its sampling, its text so far, and where its pieces go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.engines.detokenizer import Detokenizer
from actors.engines.text_stop import StopScanner
from registries.contracts.generation import FinishReason


@dataclass(frozen=True, slots=True)
class Piece:
    """What a step gave one request: text, its tokens, and at the end the reason or the error."""

    text: str
    tokens: int
    finish_reason: FinishReason | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class BatchRow:
    """State of one request; ``cancelled`` may be set from any thread and is read between steps."""

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]
    tokenizer: Any
    end_ids: frozenset[int]
    deliver: Callable[[Piece], None]
    cancelled: bool = False
    made: int = 0
    generator: Any = None
    _text: Detokenizer = field(init=False)
    _stops: StopScanner = field(init=False)

    def __post_init__(self) -> None:
        self._text = Detokenizer(self.tokenizer)
        self._stops = StopScanner(self.stop)

    def accept(self, token: int) -> Piece:
        """Take one sampled token; the piece tells whether the row is finished."""
        self.made += 1
        if token in self.end_ids:
            return self._ending("", "stop")
        shown = self._stops.feed(self._text.feed(token))
        if self._stops.stopped:
            return Piece(shown, 1, "stop")
        if self.made >= self.max_tokens:
            return self._ending(shown, "length")
        return Piece(shown, 1)

    def _ending(self, shown: str, reason: FinishReason) -> Piece:
        rest = shown + self._stops.feed(self._text.flush())
        stopped = self._stops.stopped
        return Piece(rest + self._stops.flush(), 1, "stop" if stopped else reason)
