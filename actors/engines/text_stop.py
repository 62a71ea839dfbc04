"""Stop strings in a stream: nothing of a stop string is ever shown, and nothing else is held back."""

from __future__ import annotations


class StopScanner:
    """Feed text piece by piece; get what is safe to show.

    Holds back only a suffix that could still become a stop string. ``stopped`` is True once one was
    found; the text then ends right before the earliest one.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(item for item in stop if item)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Text that is now certain; empty when everything is held back or the stream has stopped."""
        if self.stopped:
            return ""
        if not self._stop:
            return piece
        text = self._held + piece
        found = [at for at in (text.find(item) for item in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, item) for item in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The rest, when the stream ends without a stop string."""
        rest, self._held = self._held, ""
        return "" if self.stopped else rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of ``text`` that begins ``stop``."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
