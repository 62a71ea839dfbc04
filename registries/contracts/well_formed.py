"""Text that every encoder takes: Unicode without halves of surrogate pairs."""

from __future__ import annotations

REPLACEMENT = "\ufffd"
_FIRST_HALF = ("\ud800", "\udbff")


def well_formed(text: str) -> str:
    """The text with its pairs joined and every lone half replaced by U+FFFD; itself where it has none.

    Providers send such halves (JSON allows ``"\\ud83d"``, and an emoji may be split over two chunks), while
    UTF-8, and with it databases, HTTP and pydantic's JSON, refuses them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class WellFormedStream:
    """The same for a text that comes in pieces: what is taken joins to what ``well_formed`` makes of all."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """The next piece as it may be shown; a first half at its end waits for the second."""
        text, self._held = self._held + piece, ""
        if text and _FIRST_HALF[0] <= text[-1] <= _FIRST_HALF[1]:
            text, self._held = text[:-1], text[-1]
        return well_formed(text)

    def rest(self) -> str:
        """What still waits when nothing more comes."""
        held, self._held = self._held, ""
        return well_formed(held)
