"""What the scripted engine plays: answers by pattern, latencies, token rates and failures, as data."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from registries.contracts.errors import Fault
from registries.contracts.frozen import Frozen

FaultKind = Literal[
    "timeout",
    "refused",
    "rate_limited",
    "auth",
    "bad_response",
    "stream_cut",
    "context_window",
    "content_policy",
    "not_served",
    "garbage",
    "error_in_200",
    "end_without_finish",
]
# Kinds that only exist on a wire; in process they are what an HTTP client makes of them.
FAULT_OF_KIND: dict[str, Fault] = {
    **{fault.value: fault for fault in Fault},
    "garbage": Fault.BAD_RESPONSE,
    "error_in_200": Fault.BAD_RESPONSE,
    "end_without_finish": Fault.STREAM_CUT,
}
_TOKEN = re.compile(r"\s*\S+|\s+\Z")


class ScriptedFault(Frozen):
    """A failure: its kind, how many calls it hits (None: all), what it tells or how far it gets.

    ``timeout`` hangs until the caller goes away; ``after_tokens`` is for cut streams.
    """

    kind: FaultKind
    times: int | None = Field(default=1, ge=1)
    retry_after_s: float | None = Field(default=None, ge=0)
    after_tokens: int = Field(default=2, ge=0)


class ScriptedAnswer(Frozen):
    """One rule: the first whose ``pattern`` (re.search on the last user message) matches answers.

    With several ``texts`` the seed chooses, without a seed the call's number does. ``tokens_per_s`` None is
    instant. Faults come one after another, before any answer.
    """

    pattern: str = ""
    texts: tuple[str, ...] = Field(default=("A scripted answer.",), min_length=1)
    latency_s: float = Field(default=0.0, ge=0)
    tokens_per_s: float | None = Field(default=None, gt=0)
    faults: tuple[ScriptedFault, ...] = ()

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"pattern {value!r} is not a regular expression: {error}") from error
        return value


class Script(Frozen):
    """A whole script. ``slots`` bounds the calls that run at once (None: no bound); the others wait.

    ``echo`` answers unmatched prompts with the prompt itself, else with a fixed sentence.
    """

    answers: tuple[ScriptedAnswer, ...] = ()
    slots: int | None = Field(default=None, ge=1)
    context_window: int = Field(default=8192, ge=1)
    echo: bool = False
    models: tuple[str, ...] = ("scripted",)


@dataclass(frozen=True, slots=True)
class Performance:
    """What one call gets: the tokens, their pace, and perhaps a fault instead."""

    tokens: tuple[str, ...]
    latency_s: float
    tokens_per_s: float | None
    fault: ScriptedFault | None

    @property
    def fault_class(self) -> Fault | None:
        """The fault as the error tree names it."""
        return None if self.fault is None else FAULT_OF_KIND[self.fault.kind]


def tokens_of(text: str) -> tuple[str, ...]:
    """Words with the space before them; joined they are the text again."""
    return tuple(_TOKEN.findall(text))


class ScriptPlayer:
    """Plays one script: counts calls and spends faults. Pure but for its counters."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls = 0
        self._spent: Counter[tuple[int, int]] = Counter()

    def perform(self, prompt: str, seed: int | None) -> Performance:
        """The performance for this prompt; every call advances the script."""
        number, self.calls = self.calls, self.calls + 1
        for index, answer in enumerate(self.script.answers):
            if re.search(answer.pattern, prompt):
                choice = number if seed is None else seed
                text = answer.texts[choice % len(answer.texts)]
                fault = self._next_fault(index, answer)
                return Performance(tokens_of(text), answer.latency_s, answer.tokens_per_s, fault)
        text = prompt if self.script.echo else ScriptedAnswer().texts[0]
        return Performance(tokens_of(text), 0.0, None, None)

    def _next_fault(self, index: int, answer: ScriptedAnswer) -> ScriptedFault | None:
        for place, fault in enumerate(answer.faults):
            if fault.times is None:
                return fault
            if self._spent[index, place] < fault.times:
                self._spent[index, place] += 1
                return fault
        return None
