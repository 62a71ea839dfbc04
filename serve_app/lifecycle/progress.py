"""What starting and stopping tell the person who waits."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Words on stderr; never data."""

    def say(self, text: str) -> None:
        """A fact that stays."""
        ...

    def doing(self, text: str) -> None:
        """What is going on right now; replaced by the next one."""
        ...


class Silent:
    """For programs: nobody waits."""

    def say(self, text: str) -> None:
        """Nothing."""

    def doing(self, text: str) -> None:
        """Nothing."""
