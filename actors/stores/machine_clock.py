"""The clocks of a machine: one for people, one for leases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """An id of this boot of the machine; "" where the system has none (macOS)."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class MachineClock:
    """``wall`` is seconds since the epoch and jumps when somebody sets it.

    ``lease`` never does: CLOCK_MONOTONIC, which all processes of one machine share and which begins again
    when the machine does; ``boot_id`` tells the two boots apart.
    """

    wall: Callable[[], float] = time.time
    lease: Callable[[], float] = time.monotonic
    boot_id: Callable[[], str] = read_boot_id
