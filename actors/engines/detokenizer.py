"""Token ids to text, one token at a time, without splitting a character or losing a space."""

from __future__ import annotations

from typing import Any

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Decodes a growing sequence. Looks back a few tokens, since a token's text depends on the one before."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._prefix = 0
        self._read = 0

    def feed(self, token: int) -> str:
        """Text that has become certain; empty inside a character of several tokens."""
        self._ids.append(token)
        text = self._decode(self._ids[self._prefix :])
        if text.endswith(_INCOMPLETE):
            return ""
        return self._take(text)

    def flush(self) -> str:
        """What was held back, at the end."""
        return self._take(self._decode(self._ids[self._prefix :]))

    def _take(self, text: str) -> str:
        known = self._decode(self._ids[self._prefix : self._read])
        if len(text) <= len(known):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
