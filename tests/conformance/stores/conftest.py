"""A fresh database of every backend for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.stores import outage_watch
from actors.stores.open_store import OPENERS, open_store
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from tests.machine_pace import paced

URL_FIXTURES = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
"""Scheme of an opener → the fixture that makes a URL of an empty database."""
_BACKENDS = sorted({opener: scheme for scheme, opener in sorted(OPENERS.items())}.values())
"""Each opener once, whatever other schemes it is known by."""
REDIS_OVER = "redis over "
"""Before a backend: the same with Redis in front of it."""
_MIRROR = {"redis_url": "redis_url", "instance": "redis_instance"}


@pytest.fixture(autouse=True)
def a_starved_machine_is_no_outage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits longer than usual asks the server whether it lives, and is refused when that takes long too.

    Right for clients; tests of anything else wait. Those that take the server away keep the limit.
    """
    if not request.module.__name__.endswith("test_postgres_database"):
        monkeypatch.setattr(outage_watch, "PATIENCE_S", paced(10.0))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'a folder' / 'runs.db'}"


@pytest.fixture(params=[*_BACKENDS, f"{REDIS_OVER}sqlite"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RuntimeConfig:
    backend = request.param.removeprefix(REDIS_OVER)
    config = RuntimeConfig(home=str(tmp_path), store_url=request.getfixturevalue(URL_FIXTURES[backend]))
    if backend == request.param:
        return config
    mirror = {name: request.getfixturevalue(fixture) for name, fixture in _MIRROR.items()}
    return config.model_copy(update=mirror)


@pytest.fixture
async def store(config: RuntimeConfig) -> AsyncIterator[Store]:
    opened = await open_store(config)
    yield opened
    await opened.close()
