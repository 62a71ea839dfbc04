"""Dice that can be thrown again, and every kind of store for engines that are killed."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests.chaos.engine.scale import LONG, chaos_seed

_SEED = pytest.StashKey[int]()
BACKENDS = ("sqlite", "postgresql", "redis over sqlite")


def pytest_configure(config: pytest.Config) -> None:
    seed = config.stash[_SEED] = chaos_seed()
    # For xdist's workers, which are started after this: one seed a run, the one that is told at its end.
    os.environ["PARLEY_CHAOS_SEED"] = str(seed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seed = terminalreporter.config.stash.get(_SEED, None)
    terminalreporter.write_line(f"PARLEY_CHAOS={'long' if LONG else 'short'} PARLEY_CHAOS_SEED={seed}")


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same throws for the same seed and test, whatever else runs."""
    seed = request.config.stash[_SEED]
    print(f"\nPARLEY_CHAOS_SEED={seed}")
    return random.Random(f"{seed}:{request.node.name}")


@pytest.fixture
def backend_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields of RuntimeConfig for the backend that an indirect parameter names (one of BACKENDS)."""
    if request.param == "postgresql":
        return {"store_url": request.getfixturevalue("postgres_url")}
    if request.param == "redis over sqlite":
        url = request.getfixturevalue("redis_url")
        return {"redis_url": url, "instance": request.getfixturevalue("redis_instance")}
    return {}
