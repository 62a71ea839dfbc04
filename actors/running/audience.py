"""What readers may want to see of a run while it goes on."""

from __future__ import annotations

from typing import NamedTuple


class Audience(NamedTuple):
    """``tokens``: the models' words as they come, which cost nothing where nobody reads them. ``events``:
    that something begins, at once; a client that waits for the end alone gives a busy runner time."""

    tokens: bool = True
    events: bool = True
