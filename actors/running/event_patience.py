"""How long a run's events wait for company before they are committed, or sent."""

from __future__ import annotations

LINGER_S = 0.02
"""How long tokens wait; readers see this as the grain of the stream."""
MAX_LINGER_S = 0.2
BUSY_RUNS = 16
"""With this many runs in a process tokens linger twice as long, and so on."""

BEGIN_PATIENCE_S = 0.010
"""Events that say that something begins wait so long for what ends it: an instant node costs one commit.

A reader sees them within 50 ms (a budget of `make bench`), which leaves room for the commit and the way."""
BUSY_BEGIN_PATIENCE_S = 0.1
"""The same in a busy process, for runs whose client waits for the end alone. There an instant model takes
longer than 10 ms to answer: every node cost two commits, 7 a run instead of 4 (32 runs of three nodes)."""
BUSY_FROM = 0.3
"""Of a core, from which on a process is busy: two runners under full load had 0.46 each, where the front door
and a client share their two cores."""


def token_linger_s(runs: int) -> float:
    """For tokens, by the runs of this process."""
    return min(MAX_LINGER_S, LINGER_S * (1 + runs / BUSY_RUNS))


def begin_patience_s(busy: float) -> float:
    """For events that say that something begins, by the share of a core that this process uses."""
    return BUSY_BEGIN_PATIENCE_S if busy >= BUSY_FROM else BEGIN_PATIENCE_S
