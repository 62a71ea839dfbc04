"""Whether an engine has made tokens since somebody last looked: work proves life better than a probe."""

from __future__ import annotations


class TokenWatch:
    """Remembers the count of tokens at the last look.

    A probe waits behind whatever fills the engine, so that a busy one would seem dead by it.
    """

    def __init__(self) -> None:
        self._seen = 0

    def moved(self, tokens: int) -> bool:
        """Whether the engine's total has grown since the last look (the first: since its start)."""
        grown, self._seen = tokens > self._seen, tokens
        return grown
