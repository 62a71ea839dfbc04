"""How much a fault test does: what fits into `make test`, or all of it (`make chaos`)."""

from __future__ import annotations

import os
import random
from typing import TypeVar

T = TypeVar("T")
LONG = os.environ.get("PARLEY_CHAOS", "") == "long"


def scaled(short: T, long: T) -> T:
    """The first in `make test`, the second with PARLEY_CHAOS=long."""
    return long if LONG else short


def chaos_seed() -> int:
    """PARLEY_CHAOS_SEED, else a new one."""
    given = os.environ.get("PARLEY_CHAOS_SEED", "")
    return int(given) if given else random.SystemRandom().randrange(2**32)
