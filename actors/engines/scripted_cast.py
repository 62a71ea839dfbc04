"""Where scripted calls wait for a slot and speak at their pace; shared by the engine and its HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from actors.engines.script import Performance, Script, ScriptPlayer
from actors.engines.text_stop import StopScanner
from registries.contracts.generation import FinishReason

# Above this rate sleeping a token at a time measures the timer; several tokens go out together.
_SHORTEST_PAUSE_S = 0.005


@dataclass(slots=True)
class Spoken:
    """What one call has said so far."""

    text: str = ""
    tokens: int = 0
    finish_reason: FinishReason = "stop"


class ScriptedCast:
    """The player of a script, its slots, and how many calls run and wait."""

    def __init__(self, script: Script) -> None:
        self.running = 0
        self.waiting = 0
        self.aborted = 0
        self.load(script)

    def load(self, script: Script) -> None:
        """Play another script from now on; running calls end by the old one."""
        self.player = ScriptPlayer(script)
        self._slots = None if script.slots is None else asyncio.Semaphore(script.slots)

    @property
    def script(self) -> Script:
        """The script being played."""
        return self.player.script

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None, None]:
        """Wait for a slot and hold it."""
        slots = self._slots
        if slots is None:
            with self._running():
                yield
            return
        self.waiting += 1
        try:
            await slots.acquire()
        finally:
            self.waiting -= 1
        try:
            with self._running():
                yield
        finally:
            slots.release()

    @contextmanager
    def _running(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def speak(
        self, performance: Performance, max_tokens: int, stop: tuple[str, ...], spoken: Spoken
    ) -> AsyncGenerator[tuple[str, int], None]:
        """(text, tokens) at the script's pace; ``spoken`` says in the end how it went."""
        if performance.latency_s:
            await asyncio.sleep(performance.latency_s)
        scanner = StopScanner(stop)
        pause = 0.0 if performance.tokens_per_s is None else 1 / performance.tokens_per_s
        owed = 0.0
        for token in performance.tokens[:max_tokens]:
            owed += pause
            if owed >= _SHORTEST_PAUSE_S:
                await asyncio.sleep(owed)
                owed = 0.0
            spoken.tokens += 1
            shown = scanner.feed(token)
            spoken.text += shown
            if shown:
                yield shown, 1
            if scanner.stopped:
                return
        rest = scanner.flush()
        spoken.text += rest
        if len(performance.tokens) > max_tokens:
            spoken.finish_reason = "length"
        if rest:
            yield rest, 0
