"""Text from models and servers, made harmless for a terminal."""

from __future__ import annotations

import re

# CSI and OSC sequences, other escapes, and single-character C1 introducers.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[@-Z\\-_]"
)
# C0 save tab and newline, DEL, C1, and signs that reorder or hide what a person reads.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """The text without terminal escapes and control characters; tabs and line ends stay.

    A sequence that is cut by two chunks of a stream leaves visible letters behind, never an escape.
    """
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _SEQUENCES.sub("", unified))
