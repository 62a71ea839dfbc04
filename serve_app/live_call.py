"""A keyed model call that this process makes, or waits for: what it has said, and how it ends."""

from __future__ import annotations

import asyncio


class LiveCall:
    """Shared by all clients of this process that sent the same request with the same key.

    Its whole text is held, an answer's at most: the call goes on at its own pace, whoever reads it or not.
    """

    def __init__(self) -> None:
        self.clients = 0
        self.is_elsewhere = False
        """Whether the answer is that of another request, which had come first."""
        self.answer: str | None = None
        self.error: Exception | None = None
        self.is_everyones = False
        """Whether the error is that of all its clients, and not only of the one that had it made."""
        self._texts: list[str] = []
        self._news = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether there is an answer, or an error."""
        return self.answer is not None or self.error is not None

    @property
    def has_said(self) -> bool:
        """Whether any of its text was told."""
        return bool(self._texts)

    def say(self, text: str) -> None:
        """Tell a piece of the answer."""
        if text:
            self._texts.append(text)
            self._tell()

    def finish(self, answer: str) -> None:
        """The answer as JSON."""
        self.answer = answer
        self._tell()

    def fail(self, error: Exception, everyones: bool = False) -> None:
        """There will be no answer."""
        self.error, self.is_everyones = error, everyones
        self._tell()

    def since(self, seen: int) -> tuple[str, int]:
        """What was said after so many pieces, and how many there are now."""
        return "".join(self._texts[seen:]), len(self._texts)

    def news(self) -> asyncio.Event:
        """Set once there is anything more than now."""
        return self._news

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()
